"""Self-Transcendence experiments, end to end: one YAML file, one command."""
