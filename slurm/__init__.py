"""For the owners of a Slurm cluster, and for those who want one on their own machine."""
