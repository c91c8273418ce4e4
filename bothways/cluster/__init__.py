"""The parts of a job made by a cluster. Ray is imported here and nowhere else."""
