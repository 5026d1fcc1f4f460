"""The models: image classifier and captioner, in plain PyTorch."""
