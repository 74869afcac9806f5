"""The experiment file and the cluster file: parsed once, at the door."""
