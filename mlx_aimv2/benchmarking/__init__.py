"""Measurements of speed and memory on this machine: the machine itself, the model, the decoding of images."""
