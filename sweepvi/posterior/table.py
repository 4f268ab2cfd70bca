"""The table of a posterior: a row for each scalar; as CSV, as text, for pandas."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sweepvi.diagnostics import k_limit

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Row:
    """A scalar: an entry of a latent variable or of a ``pyro.deterministic`` site, constrained."""

    name: str
    """Of the site, with the entry's indices from 0: ``theta[2]``."""
    mean: float
    sd: float
    mcse_mean: float
    """Monte Carlo standard error of ``mean``, from the number of draws."""
    mcse_sd: float
    q5: float
    """Quantiles, in percent."""
    q25: float
    q50: float
    q75: float
    q95: float
    psis_mean: float
    """From here on, of the draws weighted by p / q, smoothed: NaN where there are no such weights."""
    psis_sd: float
    psis_mcse_mean: float
    psis_mcse_sd: float
    psis_q5: float
    psis_q25: float
    psis_q50: float
    psis_q75: float
    psis_q95: float
    lr_mean: float = math.nan
    """From here on, by linear response: NaN unless ``optimizer.linear_response``."""
    lr_sd: float = math.nan


LINEAR_RESPONSE = ("lr_mean", "lr_sd")
"""Columns that tables have only where they were asked for."""

COLUMNS = tuple(field.name for field in fields(Row) if field.name not in LINEAR_RESPONSE)
"""Columns of every table."""


@dataclass(frozen=True)
class Posterior:
    """Means, standard deviations and quantiles of a fit's posterior, from fresh draws of its guide."""

    rows: list[Row]
    draws: int
    k_hat: float | None
    """Of the draws' weights: see :func:`sweepvi.diagnostics.psis`."""

    @property
    def corrected(self) -> bool:
        """Whether the columns ``psis_…`` are the better ones: k-hat is within its limit."""
        return self.k_hat is not None and self.k_hat < k_limit(self.draws)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        has = any(not math.isnan(row.lr_sd) for row in self.rows)
        return (*COLUMNS, *LINEAR_RESPONSE) if has else COLUMNS

    def with_linear_response(self, means: Sequence[float], sds: Sequence[float]) -> Posterior:
        """The table with these columns ``lr_mean`` and ``lr_sd``."""
        rows = [replace(row, lr_mean=mean, lr_sd=sd) for row, mean, sd in zip(self.rows, means, sds, strict=True)]
        return replace(self, rows=rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        """The row of a scalar; ``KeyError`` if there is none of that name."""
        found = next((row for row in self.rows if row.name == name), None)
        if found is None:
            raise KeyError(name)
        return found

    @property
    def largest_shift(self) -> tuple[float | None, str]:
        """The largest distance of a corrected from a plain mean, in corrected standard deviations, and where it is."""
        return _largest((abs(row.psis_mean - row.mean), row.psis_sd, row.name) for row in self.rows)

    @property
    def largest_error(self) -> tuple[float | None, str]:
        """The largest Monte Carlo error of the better mean, in its standard deviations, and where it is."""
        if self.corrected:
            return _largest((row.psis_mcse_mean, row.psis_sd, row.name) for row in self.rows)
        return _largest((row.mcse_mean, row.sd, row.name) for row in self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """All columns, indexed by name."""
        import pandas as pd

        rows = [astuple(row)[: len(self.columns)] for row in self.rows]
        return pd.DataFrame(rows, columns=list(self.columns)).set_index("name")

    def csv(self) -> str:
        """All columns as CSV; numbers read back to the last bit."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([row.name, *map(repr, astuple(row)[1 : len(self.columns)])] for row in self.rows)
        return text.getvalue()

    @classmethod
    def read(cls, path: Path, draws: int, k_hat: float | None) -> Posterior:
        """The table that :meth:`csv` has written."""
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            columns = (lines.fieldnames or [])[1:]
            rows = [Row(row["name"], **{column: float(row[column]) for column in columns}) for row in lines]
        return cls(rows, draws, k_hat)

    def text(self, most: int = 12, more: str = "posterior.csv") -> str:
        """The first rows, aligned: mean, standard deviation, error of the mean, and quantiles; the better of each.

        Args:
            most: rows to show.
            more: where the others are.

        """
        shown = self.rows[:most]
        prefix = "psis_" if self.corrected else ""
        picked = [[getattr(row, prefix + column) for column in _SHOWN] for row in shown]
        titles = _TITLES
        if self.columns != COLUMNS:
            picked = [[*cells, row.lr_sd] for cells, row in zip(picked, shown, strict=True)]
            titles = (*_TITLES, "LR sd")
        table = [["", *titles], *([row.name, *_rounded(cells)] for row, cells in zip(shown, picked, strict=True))]
        widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
        lines = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in table
        ]
        how = "draws of the guide, weighted by PSIS" if self.corrected else "draws of the guide, unweighted"
        left = len(self.rows) - len(shown)
        return "\n".join(
            [f"posterior, {self.draws:,} {how}:", *lines, *([f"… and {left:,} more in {more}"] if left else [])]
        )


def _largest(ratios: Iterable[tuple[float, float, str]]) -> tuple[float | None, str]:
    """The largest quotient of two numbers, and its name; None if there is no denominator above 0."""
    known = [(above / below, name) for above, below, name in ratios if below > 0 and math.isfinite(above)]
    return max(known, default=(None, ""))


_SHOWN = ("mean", "sd", "mcse_mean", "q5", "q95")
_TITLES = ("mean", "sd", "error", "5 %", "95 %")


def _rounded(cells: Sequence[float]) -> list[str]:
    """Numbers of one row with as many decimals as give its standard deviation three digits."""
    sd = cells[1]
    size = max((abs(cell) for cell in cells if math.isfinite(cell)), default=0.0)
    if not math.isfinite(sd) or size == 0 or size >= 1e7 or (sd > 0 and sd < 1e-5):
        return [f"{cell:.3g}" for cell in cells]
    decimals = min(7, max(0, 2 - math.floor(math.log10(sd)))) if sd > 0 else 3
    return [f"{cell:,.{decimals + (place == 2)}f}" for place, cell in enumerate(cells)]


def scalar_names(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Names of all entries of sites of these shapes, sites in order and the last index fastest: ``theta[0,1]``."""
    return [
        name + (f"[{','.join(map(str, place))}]" if place else "")
        for name, shape in shapes.items()
        for place in itertools.product(*map(range, shape))
    ]
