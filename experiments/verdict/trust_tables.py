"""The tables: trust against quality, and the fits that the verdict is wrong about."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from fits import Line
from scipy.stats import binomtest

TRUSTS = ("yes", "caution", "no")
QUALITIES = ("good", "between", "off")


def report(lines: Sequence[Line]) -> str:
    """All of it, as Markdown."""
    return "\n\n".join([trust_by_quality(lines), targets(lines), by_posterior(lines), wrong(lines)])


def trust_by_quality(lines: Sequence[Line]) -> str:
    """A row for each trust: fits of each quality, and how far off they are."""
    rows = [
        "| trust | fits | good | between | off | bias: median | 90 % | largest |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for trust in TRUSTS:
        own = [line for line in lines if line.trust == trust]
        counts = [sum(line.quality == quality for line in own) for quality in QUALITIES]
        biases = sorted(line.bias for line in own)
        cells = [trust, len(own), *counts, *(_of(biases, share) for share in (0.5, 0.9, 1.0))]
        rows.append(_row(cells))
    return "\n".join(rows)


def targets(lines: Sequence[Line]) -> str:
    """The two shares that the verdict is held to, with exact intervals of 95 %: Clopper & Pearson, 1934."""
    believed = [line for line in lines if line.trust == "yes"]
    good = [line for line in lines if line.quality == "good"]
    off = sum(line.quality == "off" for line in believed)
    marked = sum(line.trust == "yes" for line in good)
    return "\n".join(
        [
            f"- off, of those marked `yes`: {_share(off, len(believed))}; wanted: 1 % at most",
            f"- marked `yes`, of the good: {_share(marked, len(good))}; wanted: 80 % at least",
        ]
    )


def by_posterior(lines: Sequence[Line]) -> str:
    """A row a posterior."""
    rows = ["| posterior | fits | good | marked `yes` of these | marked `yes` | off of these |", "|---|" + "--:|" * 5]
    for posterior in dict.fromkeys(line.posterior for line in lines):
        own = [line for line in lines if line.posterior == posterior]
        good = [line for line in own if line.quality == "good"]
        believed = [line for line in own if line.trust == "yes"]
        marked = sum(line.trust == "yes" for line in good)
        off = sum(line.quality == "off" for line in believed)
        rows.append(_row([posterior, len(own), len(good), marked, len(believed), off]))
    return "\n".join(rows)


def wrong(lines: Sequence[Line]) -> str:
    """The good that are not marked ``yes``, with the reasons, and those marked ``yes`` that are not good."""
    rows = ["| posterior | fit | trust | bias | sd ratios | k-hat | reasons |", "|---|---|---|--:|--:|--:|---|"]
    for line in lines:
        if (line.trust == "yes") != (line.quality == "good"):
            numbers = [f"{line.bias:.2f}", f"{line.low:.2f}–{line.high:.2f}", f"{line.k_hat:.2f}"]
            rows.append(_row([line.posterior, line.name, line.trust, *numbers, line.reasons]))
    return "\n".join(rows)


def _of(ordered: Sequence[float], share: float) -> str:
    if not ordered:
        return "–"
    if share == 0.5:
        return f"{statistics.median(ordered):.3g}"
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.3g}"


def _share(count: int, of: int) -> str:
    if not of:
        return "none of none"
    interval = binomtest(count, of).proportion_ci(method="exact")
    return f"{count} of {of}, {count / of:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
