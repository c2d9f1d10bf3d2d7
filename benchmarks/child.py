"""Run one side and print its result: `python child.py MODULE FUNCTION SETUP ARGUMENTS`, all but names as JSON."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys

from suite import Setup
from timing import peak_bytes


def main() -> None:
    module, function, setup, arguments = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):  # some libraries print
        result = getattr(importlib.import_module(module), function)(
            Setup(**json.loads(setup)), **json.loads(arguments)
        )
    print(json.dumps({**result, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
