"""Generators of debug images, a file each; none of them is imported before it is asked for."""
