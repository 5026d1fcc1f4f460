"""Data debugging: a debug set chosen or made by one of seven strategies, and the model retrained on it.

Importing this package loads the options only.
"""
