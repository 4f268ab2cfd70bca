"""A fit of the study as a line of CSV: its verdict's numbers, and how far it is from the reference."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, TypeAlias

from measures import Measures
from quality import of_table
from reference import Reference
from settings import SETTINGS

from sweepvi.files import write_atomically
from sweepvi.results import FitResult

Quality: TypeAlias = Literal["good", "between", "off"]

OFF = 1.0
"""Standard deviations from the reference mean, of any scalar, at which a fit is off."""


@dataclass(frozen=True)
class Line:
    """A fit; what is not known is NaN or empty."""

    posterior: str
    setting: int
    """Its place in :data:`settings.SETTINGS`, which is its seed."""
    program: str
    status: str
    trust: str
    bias: float
    """The largest |mean − reference mean| of the reported means, in reference standard deviations."""
    low: float
    """The smallest ratio of a reported standard deviation to the reference's."""
    high: float
    plain_bias: float
    """As ``bias``, of the plain means."""
    elbo: float
    k_hat: float
    sd_log_weights: float
    ess: float
    largest: float
    shift: float
    error: float
    r_hat: float
    restarts: int
    agreeing: int
    modes: float
    modes_missed: float
    seconds: float
    reasons: str

    @property
    def key(self) -> tuple[str, int]:
        """What is not run twice."""
        return self.posterior, self.setting

    @property
    def name(self) -> str:
        """Of its setting, with the program."""
        return f"{self.program}: {SETTINGS[self.setting].name}"

    @property
    def quality(self) -> Quality:
        """Good by posteriordb's joint pass, off from one standard deviation on."""
        if Measures(self.bias, "", self.low, self.high).passes:
            return "good"
        return "between" if self.bias < OFF else "off"

    @classmethod
    def of(cls, posterior: str, setting: int, program: str, result: FitResult, reference: Reference) -> Line:
        """The line of a result."""
        verdict = result.verdict
        assert verdict is not None
        shown, plain = of_table(result.posterior, reference)
        numbers = {name: _float(verdict.numbers[name]) for name in _NUMBERS}
        return cls(
            posterior=posterior,
            setting=setting,
            program=program,
            status=result.status,
            trust=verdict.trust,
            bias=shown.bias,
            low=shown.low,
            high=shown.high,
            plain_bias=plain.bias,
            elbo=_float(result.elbo),
            restarts=verdict.numbers["restarts"],
            agreeing=verdict.numbers["agreeing"],
            seconds=result.seconds,
            reasons="; ".join(verdict.reasons),
            **numbers,
        )


_NUMBERS = ("k_hat", "sd_log_weights", "ess", "largest", "shift", "error", "r_hat", "modes", "modes_missed")
_COLUMNS = [field.name for field in fields(Line)]
_TYPES = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(Line)}


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read(path: Path) -> list[Line]:
    """The lines of a file; none if it is not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [Line(**{name: _TYPES[name](row[name]) for name in _COLUMNS}) for row in csv.DictReader(file)]


def append(path: Path, lines: Iterable[Line]) -> None:
    """Add lines to a file, which is whole at any time."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in [*read(path), *lines])
    write_atomically(path, text.getvalue())
