"""Programs that run in a process of their own, with a limit of time: they may wait for ever or crash."""

from __future__ import annotations

import subprocess
import sys


def run_program(program: str, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Python code; `subprocess.TimeoutExpired` says that it hangs."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)
