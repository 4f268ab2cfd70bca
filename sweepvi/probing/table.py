"""A probe as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweepvi.errors import listed
from sweepvi.probing.candidates import LeftOut
from sweepvi.probing.ranking import Block, blocks, verdict
from sweepvi.probing.row import Row

if TYPE_CHECKING:
    from sweepvi.probing.result import ProbeResult

HEADINGS = ("estimator", "particles", "|mean| ± SE", "SNR", "variance", "ms/gradient", "variance × s", "")
NOTHING = "–"


def text(result: ProbeResult) -> str:
    """All rows in a table, a part for each objective; what is best in each, what does not agree, what is left out."""
    found = blocks(result.rows)
    verdicts = {block.words: verdict(block, result.configured) for block in found}
    parts = [
        [f"gradients {result.place}; {result.draws:,} draws a row"],
        _table(found),
        [line for block in found for line in _disagreements(block)],
        [f"least variance per second, {words}: {said}" for words, said in verdicts.items() if said],
        ["left out:", *_by_reason(result.left_out)] if result.left_out else [],
        [f"interrupted: {len(result.rows)} of {result.planned} rows are measured"] * (result.status == "interrupted"),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _table(found: Sequence[Block]) -> list[str]:
    header, *lines = _aligned([HEADINGS, *(_cells(row) for block in found for row in block.rows)])
    rest = iter(lines)
    table = [header]
    for block in found:
        size = next((row.total.size for row in block.rows if row.total), None)
        table.append(f"{block.words}{'' if size is None else f', {size:,} parameters'}")
        table += [next(rest) for _ in block.rows]
    return table


def _cells(row: Row) -> tuple[str, ...]:
    first, milliseconds = (f"  {row.estimator}", str(row.particles)), _number(row.seconds and 1000 * row.seconds)
    if row.total is None:
        return (*first, NOTHING, NOTHING, NOTHING, milliseconds, NOTHING, row.status)
    noise = row.total
    return (
        *first,
        f"{_number(noise.mean_norm)} ± {_number(noise.standard_error, 2)}",
        _number(noise.snr),
        _number(noise.variance) + _percent(noise.variance_se, noise.variance),
        milliseconds,
        _number(row.cost),
        _remark(row),
    )


def _remark(row: Row) -> str:
    distance = row.disagreement
    off = f" ({distance.standard_errors:.1f} SE)" if distance and distance.significant else ""
    if not row.unbiased:
        return f"biased{off}: not ranked"
    return f"disagrees{off}" if off else ""


def _disagreements(block: Block) -> list[str]:
    lines = [
        f"{row.words} disagrees with {far.reference} beyond chance: {far.standard_errors:.1f} SE in {far.parameter}"
        for row in block.rows
        if row.unbiased and (far := row.disagreement) and far.significant
    ]
    return [*lines, "If more draws say the same, one of them is wrong for this model."] if lines else []


def _by_reason(left_out: Sequence[LeftOut]) -> list[str]:
    """A line a reason: ``rloo, iwae × 1: …``, with numbers of particles."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for entry in left_out:
        numbers.setdefault((entry.reason, entry.estimator), []).append(entry.particles)
    by_reason: dict[str, dict[str, list[str]]] = {}
    for (reason, estimator), particles in numbers.items():
        by_reason.setdefault(reason, {}).setdefault(listed(map(str, particles)), []).append(estimator)
    return [
        f"  {'; '.join(f'{listed(names)} × {particles}' for particles, names in groups.items())}: {reason}"
        for reason, groups in by_reason.items()
    ]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Columns of numbers to the right, the first and the last to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = []
    for first, *numbers, last in cells:
        middle = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=False)]
        rows.append("  ".join([first.ljust(widths[0]), *middle, last]).rstrip())
    return rows


def _percent(error: float | None, value: float) -> str:
    return f" ± {100 * error / value:.0f} %" if error is not None and value > 0 else ""


def _number(value: float | None, digits: int = 3) -> str:
    """With so many digits; whole where it has more, up to a million."""
    if value is None or not math.isfinite(value):
        return NOTHING if value is None else str(value)
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e6 else f"{value:.{digits}g}"
