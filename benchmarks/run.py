"""Speed and memory, compared with other programs and with the limits of this machine.

Writes RESULTS.md, plots/ and results.json. A case that is measured again replaces its old numbers; all others stay.
Sides that need PyTorch can run in another environment (`--peer-python`), for example one with torchvision and timm.

    pip install 'mlx-aimv2[bench]'
    python benchmarks/run.py [--only forward] [--rounds 3] [--peer-python ENVIRONMENT/bin/python]
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cases import (
    decoding,
    folder,
    forward,
    loading,
    many,
    pair,
    parts,
    peak,
    quantized,
    scaling,
    shapes,
    start,
    training,
)
from machine import describe, peer_versions
from plots import draw_plots
from report import duration, write_report
from results import Results
from suite import HERE, Case, Family, Runner, Setup, Side

FAMILIES = [
    module.FAMILY
    for module in (
        peak,
        forward,
        parts,
        pair,
        loading,
        start,
        decoding,
        folder,
        many,
        quantized,
        training,
        scaling,
        shapes,
    )
]


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", metavar="CASE", help="a family, or FAMILY/CASE; * for any text"
    )
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument("--rounds", type=positive, default=3, help="how often every side runs, at most")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model, one round: to try the suite itself"
    )
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="for sides with PyTorch"
    )
    parser.add_argument("--output", type=Path, default=HERE, metavar="FOLDER", help="where the results go")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keeps checkpoints and images (6 GB)")
    return parser.parse_args(arguments)


def chosen(families: list[Family], setup: Setup, patterns: list[str] | None) -> dict[str, Case]:
    """The cases that some pattern names, by family and name."""
    cases = {f"{family.name}/{case.name}": case for family in families for case in family.cases(setup)}
    if patterns is None:
        return cases
    for pattern in patterns:
        if not any(matches(key, pattern) for key in cases):
            sys.exit(f"--only {pattern}: no such case; --list prints them")
    return {key: case for key, case in cases.items() if any(matches(key, pattern) for pattern in patterns)}


def matches(key: str, pattern: str) -> bool:
    """Whether a pattern names a case."""
    return fnmatch.fnmatch(key, pattern) or fnmatch.fnmatch(key, f"{pattern}/*")


def measure(cases: dict[str, Case], runner: Runner, results: Results, output: Path) -> None:
    """Run cases, and write all results after each."""
    order = [f"{family.name}/{case.name}" for family in FAMILIES for case in family.cases(runner.setup)]
    source = commit()  # before the results change it
    for key, case in cases.items():
        sides = runner.run(case)
        results.cases[key] = {"images": case.images, "commit": source, "date": now(), "sides": sides}
        known = {name: x for name, x in results.cases.items() if name in order}
        results.cases = dict(sorted(known.items(), key=lambda item: order.index(item[0])))
        results.write(output / "results.json")
        write_report(results, FAMILIES, output / "RESULTS.md", {})
        summary = [f"{row.side} {duration(row.seconds)}" for row in results.rows(key)]
        summary += [f"{side}: {why}" for side, why in results.problems(key).items()]
        print(f"{now()} {key}: {'; '.join(summary) or 'done'}", file=sys.stderr, flush=True)


def commit() -> str:
    """The commit of this source tree, with + if it has changes."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=8", "--exclude=*"],
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"


def now() -> str:
    """The time in minutes."""
    return datetime.datetime.now().isoformat(" ", "minutes")


def machine_facts(runner: Runner) -> dict[str, Any]:
    """The machine, described in another process; with versions of the peers."""
    facts = runner.run_side(Side("machine", describe))
    peers = runner.run_side(Side("versions", peer_versions, is_peer=True))
    if "problem" in facts:
        sys.exit(f"the machine cannot be described: {facts['problem']}")
    values = facts["values"]
    library = Path(str(values.get("blas"))).name  # not where it lies
    return {**values, "blas": library, "versions": {**values["versions"], **peers.get("values", {})}}


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        setup = Setup(str(options.work or temporary), options.quick)
        cases = chosen(FAMILIES, setup, options.only)
        if options.list:
            print("\n".join(cases))
            return
        try:
            for path in (setup.folder, options.output):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            sys.exit(f"{path}: this folder cannot be made ({error.strerror})")
        runner = Runner(setup, 1 if options.quick else options.rounds, options.peer_python)
        results = Results.read(options.output / "results.json", machine_facts(runner))
        try:
            measure(cases, runner, results, options.output)
        finally:
            plots = draw_plots(results, [family.name for family in FAMILIES], options.output / "plots")
            write_report(results, FAMILIES, options.output / "RESULTS.md", plots)
    print(os.fspath(options.output / "RESULTS.md"))


if __name__ == "__main__":
    main()
