"""What computes behind the facade: TorchServe, or this process."""
