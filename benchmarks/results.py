"""The measured numbers: results.json, and questions to it."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One timing of a side over all rounds.

    Attributes:
        side: its name, and that of the timing.
        seconds: the median of the medians of the rounds.
        fastest: of all runs.
        slowest: of all runs.
        runs: their number.
        peak_bytes: the median over the rounds; None for a second timing of the same process.
        values: the median of each number over the rounds.
    """

    side: str
    seconds: float
    fastest: float
    slowest: float
    runs: int
    peak_bytes: float | None
    values: dict[str, float]


class Results:
    """What results.json holds.

    Attributes:
        machine: hardware, system and versions.
        cases: by family and name; each has `images`, `commit`, `date` and `sides`.
    """

    def __init__(self, machine: Json, cases: dict[str, Json] | None = None) -> None:
        self.machine, self.cases = machine, cases or {}

    @classmethod
    def read(cls, path: Path, machine: Json) -> Results:
        """Those of the same machine in a file; none if there is no such file."""
        if not path.is_file():
            return cls(machine)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            same = all(stored["machine"].get(key) == machine.get(key) for key in ("cpu", "cores", "gpu"))
            return cls(machine, stored["cases"] if same else None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            sys.exit(f"{path} does not hold results ({type(error).__name__}: {error}): delete it")

    def write(self, path: Path) -> None:
        """Replace a file with them."""
        partial = path.with_suffix(".partial")
        text = json.dumps({"machine": self.machine, "cases": self.cases}, indent=1)
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)

    def rows(self, case: str) -> list[Row]:
        """The timings of a case, in the order of its sides."""
        return [
            row
            for side, result in self.cases.get(case, {}).get("sides", {}).items()
            for row in _rows(side, result["rounds"])
        ]

    def problems(self, case: str) -> dict[str, str]:
        """Why sides of a case have no numbers."""
        sides = self.cases.get(case, {}).get("sides", {})
        return {side: result["problem"] for side, result in sides.items() if "problem" in result}

    def seconds(self, case: str, side: str) -> float | None:
        """The median of a timing; None if it was not measured."""
        return next((row.seconds for row in self.rows(case) if row.side == side), None)

    def value(self, case: str, side: str, name: str) -> float | None:
        """The median of a number; None if it was not measured."""
        rounds = self.cases.get(case, {}).get("sides", {}).get(side, {}).get("rounds", [])
        values = [done["values"][name] for done in rounds if name in done["values"]]
        return statistics.median(values) if values else None


def _rows(side: str, rounds: list[Json]) -> list[Row]:
    rows = []
    for number, name in enumerate(rounds[0]["timings"] if rounds else ()):
        samples = [done["timings"][name] for done in rounds]
        runs = [x for sample in samples for x in sample]
        values = {
            key: statistics.median(done["values"][key] for done in rounds) for key in rounds[0]["values"]
        }
        rows.append(
            Row(
                side=f"{side}: {name}" if name else side,
                seconds=statistics.median(map(statistics.median, samples)),
                fastest=min(runs),
                slowest=max(runs),
                runs=len(runs),
                peak_bytes=None if number else statistics.median(done["peak_bytes"] for done in rounds),
                values={} if number else values,
            )
        )
    return rows
