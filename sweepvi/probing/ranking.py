"""Which rows can be compared, which is best, and how that is said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sweepvi.probing.candidates import words_of
from sweepvi.probing.row import Row

ELBO = "-ELBO"

TOLD_APART = 2.0
"""Standard errors of the logarithm of a ratio of two costs, from which one row leads another."""

CLOCK = 0.05
"""Relative error of a median time: that of a processor which other programs use too."""


@dataclass(frozen=True)
class Block:
    """Rows that estimate the same gradient, least variance × seconds first; those without numbers last."""

    objective: str
    particles: int | None
    """The number of particles that is part of the objective; None for the ELBO, which is the same for every number."""
    rows: tuple[Row, ...]

    @property
    def words(self) -> str:
        """The objective in words."""
        return self.objective if self.particles is None else words_of(self.objective, self.particles)

    @property
    def ranked(self) -> list[Row]:
        """The rows that a choice is between: those with numbers that say they are unbiased."""
        return [row for row in self.rows if row.unbiased and row.cost is not None]

    @property
    def best(self) -> Row | None:
        """The row with the least variance × seconds; None if no row is ranked."""
        return self.ranked[0] if self.ranked else None


def blocks(rows: Sequence[Row]) -> list[Block]:
    """Rows by what they are the gradient of; the ELBO first.

    Other bounds are others for every number of particles.
    """
    by_key: dict[tuple[str, int | None], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.objective != ELBO):
        by_key.setdefault((row.objective, None if row.objective == ELBO else row.particles), []).append(row)
    return [Block(*key, tuple(sorted(of_key, key=_place))) for key, of_key in by_key.items()]


def _place(row: Row) -> float:
    return math.inf if row.cost is None else row.cost


def verdict(block: Block, configured: str) -> str | None:
    """The best row in a sentence, compared with ``configured``, the fit's own in words; None if there is no choice."""
    best = block.best
    others = [row for row in block.ranked if row is not best]
    if best is None or not others:
        return None
    said = best.words
    near = [row for row in others if not _leads(best, row)]
    other = others[0] if best.words == configured else _compared_with(others, configured)
    if other not in near:
        said += f", {_ratio(best, other)} than {other.words}"
    return f"{said}; about as good: {', '.join(row.words for row in near)}" if near else said


def _compared_with(others: Sequence[Row], configured: str) -> Row:
    """The configured row, or else that of ``trace`` with the fewest particles, or else the next best."""
    own = [row for row in others if row.words == configured]
    plain = sorted((row for row in others if row.estimator == "trace"), key=lambda row: row.particles)
    return [*own, *plain, *others][0]


def _ratio(best: Row, other: Row) -> str:
    assert best.cost is not None
    assert other.cost is not None
    if best.cost == 0:
        return "none at all, less"
    ratio = other.cost / best.cost
    return f"{ratio:,.0f} times less" if ratio >= 100 else f"{ratio:.3g} times less"


def _leads(best: Row, other: Row) -> bool:
    """Whether the best row's lead is more than the noise in the two costs."""
    if not best.cost or not other.cost:
        return best.cost != other.cost
    error = math.hypot(_uncertainty(best), _uncertainty(other), CLOCK, CLOCK)
    return math.log(other.cost / best.cost) > TOLD_APART * error


def _uncertainty(row: Row) -> float:
    """Relative standard error of a row's variance."""
    noise = row.total
    return noise.variance_se / noise.variance if noise and noise.variance_se is not None else math.inf
