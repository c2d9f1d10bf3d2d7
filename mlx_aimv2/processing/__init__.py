"""What turns images and texts into arrays: files to NHWC pixels, strings to token ids."""
