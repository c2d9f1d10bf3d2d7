"""Data sets of labelled or captioned images, from folders and tables, in splits."""
