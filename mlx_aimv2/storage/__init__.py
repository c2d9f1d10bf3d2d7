"""Files on disk: atomic writes, replacement, locks, and reading of text and JSON."""
