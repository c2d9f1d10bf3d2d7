"""The drawn world: images of shapes with captions, on which the demo checkpoint is trained."""
