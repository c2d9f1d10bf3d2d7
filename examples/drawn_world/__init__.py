"""The drawn world: images of shapes with captions, on which the demo checkpoint is trained."""

import mlx_aimv2 as mlx_aimv2  # before MLX, whose BLAS it chooses
