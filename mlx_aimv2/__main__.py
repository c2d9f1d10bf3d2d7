"""The command `mlx-aimv2`, and `python -m mlx_aimv2`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it still starts is quiet too."""
    try:
        from .cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
