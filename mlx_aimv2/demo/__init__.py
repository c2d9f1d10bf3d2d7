"""Things to try the package on without a network: a world of drawn pictures, a checkpoint, a tour."""
