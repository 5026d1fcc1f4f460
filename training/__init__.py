"""Batch jobs: the procedural world, the trainers, evaluation and archives. `saaa-train` runs them."""
