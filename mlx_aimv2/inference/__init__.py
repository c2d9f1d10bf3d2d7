"""Embeddings of images and texts, and labels of images."""
