"""The edge: the contract's messages in and out, one file a service. Protobuf goes no further in than this."""
