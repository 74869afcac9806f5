"""The job layer: starts programs on machines and observes them; knows nothing of diffusion."""
