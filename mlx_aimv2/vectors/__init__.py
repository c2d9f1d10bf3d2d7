"""Files and folders of embeddings: formats, writer, reader."""
