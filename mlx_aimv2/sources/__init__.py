"""Search of files and folders for images, and decoding of images ahead of their use."""
