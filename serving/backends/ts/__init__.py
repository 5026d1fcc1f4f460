"""Generated stubs of the TorchServe messages that we call."""
