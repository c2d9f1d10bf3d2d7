"""What turns pictures and texts into arrays: files to NHWC pixels, strings to token ids."""
