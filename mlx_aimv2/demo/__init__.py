"""Things to try the package on without a network: drawn pictures and an untrained checkpoint."""
