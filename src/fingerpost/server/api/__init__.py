"""The endpoints, and nothing else."""
