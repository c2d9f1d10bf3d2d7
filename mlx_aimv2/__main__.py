"""`python -m mlx_aimv2`: the same as the command `mlx-aimv2`."""

from .cli.app import main

if __name__ == "__main__":
    main()
