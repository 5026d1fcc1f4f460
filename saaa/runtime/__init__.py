"""Running archived models: packed batches in, results out."""
