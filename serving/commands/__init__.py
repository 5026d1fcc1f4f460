"""The command line `saaa`."""
