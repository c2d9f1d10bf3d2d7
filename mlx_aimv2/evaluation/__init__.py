"""Metrics, charts and reports of a model on labelled or captioned images."""
