"""What stands between the wire and the services: one file a concern, all of them `CallInterceptor`s."""
