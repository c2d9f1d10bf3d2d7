"""Things to try the package on without a network: a world of drawn images, a checkpoint, a tour."""
