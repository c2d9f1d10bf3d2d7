#!/usr/bin/env python3
"""Convert a checkpoint: the same as `mlx-aimv2 convert`, with the same options."""

import sys

from mlx_aimv2.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "convert")
    main()
