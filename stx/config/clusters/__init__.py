"""Built-in cluster files."""
