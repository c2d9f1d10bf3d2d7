"""Image decoding and preprocessing to NHWC pixels, and tokenization of texts."""
