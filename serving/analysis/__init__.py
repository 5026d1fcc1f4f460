"""The data plane: one request's way from its plan to its answer. Knows neither protobuf nor sockets."""
