"""The comparison of two checkpoints on the same inputs."""
