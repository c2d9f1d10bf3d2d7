"""The training loop: batches, augmentation, losses, steps, state."""
