"""A real Slurm on one machine, in one folder: to try stx with, and to test it on. Standard library only."""
