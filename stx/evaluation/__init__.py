"""One file per metric, over torch-fidelity."""
