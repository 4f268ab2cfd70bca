"""What a search by a minimizer has come to, in words and numbers."""

from __future__ import annotations

import math
from typing import Any

from sweepvi.engine.frozen.search import FrozenSearch
from sweepvi.engine.lanes.captured import Captured
from sweepvi.errors import listed
from sweepvi.optim import Minimizer


def facts_of(search: FrozenSearch) -> dict[str, Any]:
    """Numbers of a search, as plain data: the keys of ``result.frozen``."""
    return {
        "draws": search.draws,
        "end": search.end,
        "gap": search.gap,
        "gradient_size": search.gradient_size,
        "evaluations": search.evaluations,
    }


def told(search: FrozenSearch, minimizer: Minimizer) -> str:
    """Why a search is over, in a line."""
    draws = f"{search.draws:,} frozen draws" if search.draws > 1 else "no draws"
    where = f"after {search.steps:,} steps on {draws}, with a gradient of at most {search.gradient_size:.2g}"
    short = "" if search.gap is None else f", about {search.gap:.2g} nats short of the optimum for lack of draws"
    advice = {
        "converged": "",
        "stuck": ": no step lowers the loss further in this type; try engine.dtype=float64, or a geometry",
        "max_draws": f": give more optimizer.max_draws than {minimizer.max_draws:,} for a better optimum",
        "steps": ": all engine.steps taken, short of a minimum",
    }
    name = {"max_draws": "ended at optimizer.max_draws", "steps": "ended by engine.steps"}.get(search.end, search.end)
    return f"{name} {where}{short}{advice[search.end]}"


def why_diverged(search: FrozenSearch, captured: Captured) -> str:
    """Where the loss of a search is not finite."""
    loss, gradient = search.losses[-1], search.gradient
    names = [name for name, part in captured.unpacked(gradient).items() if not bool(part.isfinite().all())]
    what = f"non-finite gradient of {listed(names)}" if math.isfinite(loss) else f"loss is {loss}"
    return f"step {search.steps + 1}: {what} on {search.draws} frozen draws"
