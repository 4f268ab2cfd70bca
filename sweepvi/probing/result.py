"""What a probe has found: rows, which is best, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweepvi.errors import Problem, raise_if
from sweepvi.files import write_atomically
from sweepvi.probing.candidates import LeftOut
from sweepvi.probing.figure import drawn
from sweepvi.probing.ranking import ELBO, blocks, verdict
from sweepvi.probing.row import Noise, Row
from sweepvi.probing.table import text

JSON, CSV, FIGURE = "probe.json", "probe.csv", "probe.png"

ALL = "(all)"
"""Stands for the whole gradient in the column of parameters."""

NOISE = ("size", "mean_norm", "standard_error", "snr", "variance", "variance_se")


@dataclass(frozen=True)
class ProbeResult:
    """Gradients of several estimators at the same parameters; as text, a table."""

    status: str
    """``finished`` or ``interrupted``."""
    rows: tuple[Row, ...]
    """In the order in which they were measured."""
    planned: int
    """How many rows there were to be."""
    left_out: tuple[LeftOut, ...]
    """Estimators that do not fit the problem or the number of particles."""
    configured: str
    """The estimator that the fit has, in words."""
    place: str
    """Where the parameters are, in words."""
    draws: int
    """Gradients measured for each row."""
    warmup: int
    """Gradients computed before those."""
    config: Mapping[str, Any]
    """The fit's complete configuration, as plain data."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Versions and commit."""

    @property
    def best(self) -> Row | None:
        """The row with the least variance × seconds among unbiased estimators of the ELBO's gradient, if any."""
        return next((block.best for block in blocks(self.rows) if block.objective == ELBO), None)

    def __str__(self) -> str:
        return text(self)

    def save(self, folder: str | Path) -> None:
        """Write ``probe.json``, ``probe.csv`` and ``probe.png``; every file is whole or not there.

        Raises ``ConfigError`` if the folder holds a probe already: nothing computed is written over.
        """
        folder = Path(folder)
        raise_if(occupied(folder))
        write_atomically(folder / CSV, csv_text(self))
        write_atomically(folder / FIGURE, drawn(self.rows, self.place))
        write_atomically(folder / JSON, json.dumps(_finite(summary(self)), indent=2, allow_nan=False) + "\n")


def occupied(folder: Path) -> list[Problem]:
    """Whether a probe is in the folder already, or something that is no folder is in its way."""
    in_the_way = [parent for parent in (folder, *folder.parents) if parent.exists() and not parent.is_dir()]
    problems = [Problem.of("folder", str(folder), f"{parent} is a file, not a folder") for parent in in_the_way]
    if (folder / JSON).exists():
        problems.append(Problem.of("folder", str(folder), "holds a probe already; choose another folder"))
    return problems


def summary(result: ProbeResult) -> dict[str, Any]:
    """What ``probe.json`` holds; infinite numbers are null there."""
    best = result.best
    return {
        "status": result.status,
        "place": result.place,
        "draws": result.draws,
        "warmup": result.warmup,
        "best": {"estimator": best.estimator, "particles": best.particles} if best else None,
        "verdicts": {block.words: verdict(block, result.configured) for block in blocks(result.rows)},
        "rows": [_row_summary(row) for row in result.rows],
        "left_out": [asdict(entry) for entry in result.left_out],
        "config": dict(result.config),
        **result.provenance,
    }


def _row_summary(row: Row) -> dict[str, Any]:
    keys = ("estimator", "particles", "objective", "unbiased", "status", "nonfinite", "seconds")
    return {
        **{key: getattr(row, key) for key in keys},
        "variance_seconds": row.cost,
        **(_numbers(row.total) if row.total else {}),
        "disagreement": asdict(row.disagreement) if row.disagreement else None,
        "parameters": {name: _numbers(noise) for name, noise in row.tensors.items()},
        "configuration": dict(row.node),
    }


def csv_text(result: ProbeResult) -> str:
    """A line for each row's whole gradient, and one for its part for each parameter; numbers read back exactly."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    keys = ("estimator", "particles", "objective", "unbiased", "status")
    writer.writerow([*keys, "parameter", *NOISE, "seconds", "variance_seconds"])
    for row in result.rows:
        first = [getattr(row, key) for key in keys]
        whole = _numbers(row.total) if row.total else dict.fromkeys(NOISE)
        writer.writerow([*first, ALL, *whole.values(), row.seconds, row.cost])
        writer.writerows([*first, name, *_numbers(noise).values(), None, None] for name, noise in row.tensors.items())
    return file.getvalue()


def _numbers(noise: Noise) -> dict[str, float | None]:
    return {key: getattr(noise, key) for key in NOISE}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
