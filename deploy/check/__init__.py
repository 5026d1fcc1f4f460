"""Checks of everything in `deploy/`: what a tool refuses here, a cluster does not get to see."""
