"""The demo: a checkpoint and sample images inside the package, and a tour of what a model does with them."""
