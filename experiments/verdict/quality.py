"""How far a posterior's table is from the reference: what the screen shows, and the plain columns."""

from __future__ import annotations

import math
import re

from measures import Measures
from reference import Reference

from sweepvi.posterior import Posterior

LOST = Measures(math.inf, "", 0.0, math.inf)
"""Of a fit without a table."""


def of_table(table: Posterior | None, reference: Reference) -> tuple[Measures, Measures]:
    """Those of the reported numbers, which are weighted if k-hat is below its limit, and of the plain ones."""
    if table is None:
        return LOST, LOST
    return _measured(table, reference, "psis_" if table.corrected else ""), _measured(table, reference, "")


def _measured(table: Posterior, reference: Reference, prefix: str) -> Measures:
    rows = {_as_stan(row.name): row for row in table.rows}
    bias, ratios = {}, []
    for name, mean in reference.mean.items():
        sd = reference.sd[name]
        bias[name] = _or_lost(abs(getattr(rows[name], f"{prefix}mean") - mean) / sd)
        ratios.append(_or_lost(getattr(rows[name], f"{prefix}sd") / sd))
    worst = max(bias, key=lambda name: bias[name])
    return Measures(bias[worst], worst, min(ratios), max(ratios))


def _as_stan(name: str) -> str:
    """A scalar's name with indices from 1."""
    return re.sub(r"\d+(?=[,\]])", lambda found: str(int(found[0]) + 1), name)


def _or_lost(value: float) -> float:
    return value if math.isfinite(value) else math.inf
