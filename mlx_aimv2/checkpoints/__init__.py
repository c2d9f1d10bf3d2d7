"""Checkpoints: found, read, written, and translated between layouts."""
