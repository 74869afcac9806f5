"""Drives one experiment: a pure state machine in a shell that polls."""
