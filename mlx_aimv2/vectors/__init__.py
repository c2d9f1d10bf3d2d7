"""Files and folders of vectors: formats, writers, readers."""
