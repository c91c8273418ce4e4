"""The parts of a job made by a cluster, and replicas of a server. Ray is imported here and nowhere else."""
