"""Error messages for an MLX that cannot be imported: the reason, and what to do about it."""

from __future__ import annotations

import platform
import re
import sys

INSTALL = {
    True: "pip install 'mlx-aimv2[cpu]' for a CPU, 'mlx-aimv2[cuda12]' or 'mlx-aimv2[cuda13]' for an NVIDIA GPU",
    False: "pip install mlx",
}
SAME_VERSIONS = (
    "its parts are of different versions: pip install --force-reinstall mlx together with its backend"
)

# Patterns of messages of the linker and of Python, and the advice for each; the first match counts.
ADVICE = (
    (r"'mlx' is not a package", "a file or module called mlx hides it: rename that, it is {shadow}"),
    (r"No module named 'mlx'", "it is not installed for {python}: {install}"),
    (r"No module named 'mlx\.core'",
     "it was installed without its core, or for another Python than {python}: {install}"),
    (r"libmlx\.(so|dylib).*(No such file|not loaded|cannot open)", "MLX has no backend on this machine: {install}"),
    (r"(GLIBCXX|CXXABI)_[\d.]+.*not found",
     "the C++ library of this system is too old: update libstdc++, or use a newer"
     " system or container"),
    (r"GLIBC_[\d.]+.*not found", "this system is too old for it: use a newer one, or a container of one"),
    (r"lib(cuda|nvidia-ml)\.so",
     "the driver of the NVIDIA GPU is missing: install it, or pip install 'mlx-aimv2[cpu]'"
     " to compute on the CPU"),
    (r"lib(cu|nv|nccl)\w*\.so", "a library of CUDA is missing: pip install --force-reinstall 'mlx-aimv2[cuda12]' (or"
     " cuda13), as the driver wants it"),
    (r"lib(open|c)?(blas|lapack)\w*\.so|libgfortran",
     "apt-get install libopenblas0-pthread, or the like of this system"),
    (r"incompatible architecture|wrong ELF class|Exec format|invalid ELF header|not a valid",
     "it was built for another machine than {machine}: install it with a Python for this one"),
    (r"built for macOS|minimum|Symbol not found.*(Metal|MTL)", "this macOS is too old for it: update macOS"),
    (r"undefined symbol: _?Py|Python version|module was compiled", "it was built for another Python than {python}:"
     " install it with this one"),
    (r"undefined symbol|Symbol not found", SAME_VERSIONS),
    (r"Operation not permitted|Permission denied", "its files may not be read or run: install it where they may"),
    (r"Cannot allocate memory|static TLS", "import mlx_aimv2 before everything else, or with more memory"),
    (r"partially initialized|circular import", "the import was broken off, or a file called mlx hides it: {shadow}"),
)  # fmt: skip


def import_problem(error: ImportError) -> str:
    """One line with the reason, as Python or the linker gives it, and the advice for it."""
    reason = " ".join(str(error).split()) or type(error).__name__
    linux = sys.platform.startswith("linux")
    values = {
        "python": f"Python {platform.python_version()} ({sys.executable})",
        "machine": platform.machine(),
        "install": INSTALL[linux],
        "shadow": _place(),
    }
    for pattern, advice in ADVICE:
        if re.search(pattern, reason):
            return f"MLX cannot be imported ({reason}): {advice.format(**values)}"
    return (
        f"MLX cannot be imported ({reason}): pip install --force-reinstall it, or see its notes on installing"
    )


def _place() -> str:
    """The file that Python imports as MLX."""
    module = sys.modules.get("mlx")
    paths = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    return str(paths or "not found")
