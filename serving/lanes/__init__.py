"""Lanes: where work waits its turn, is refused, is gathered into batches and is given up."""
