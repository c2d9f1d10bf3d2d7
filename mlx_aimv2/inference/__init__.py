"""Images and texts to embeddings and labels."""
