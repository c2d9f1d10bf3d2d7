"""Drawn images of coloured shapes with captions, and the training of the checkpoint `demo` on them."""

import mlx_aimv2 as mlx_aimv2  # before MLX, whose BLAS it chooses
