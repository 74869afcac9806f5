"""Metrics and scores for programs that draw them elsewhere: what is exported (runs.py), and a writer for each."""
