"""Fits that are about to run as lanes: captured, and traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch

from sweepvi.distributed import Alone, LostRanksError, Ranks
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.lanes.captured import Captured, NotCapturedError, captured, capturing
from sweepvi.engine.lanes.entrant import Entrant
from sweepvi.engine.lanes.lane_fits import LaneFits
from sweepvi.engine.lanes.memory import demand_room
from sweepvi.engine.lanes.rank_lanes import RankLanes, speaking
from sweepvi.engine.lanes.starts import Starts, entrants_of, lane_settings, restarts_of
from sweepvi.engine.together import Together
from sweepvi.engine.trial_run import start
from sweepvi.private import sources_forgotten
from sweepvi.programs import reachable_modules
from sweepvi.recipe import Recipe, fingerprint

WORTH_THREADS = 1 << 22
"""Numbers that a step must compute for more than one of torch's threads to be used, unless the settings say how many.

Less work is slower on several: they wait for each other at every operation, and for the processor if others use it.
"""

Found = TypeVar("Found")


@contextmanager
def lane_fits(recipes: Sequence[Recipe], ranks: Ranks | None = None) -> Iterator[LaneFits]:
    """Fits of one program at their first step, inside their environment, together with other ranks if there are some.

    Raises:
        NotCapturedError: they cannot run as lanes; on all ranks, if they cannot on one.
        ConfigError: the model does not run on its data; or there is not enough memory.

    """
    first, ranks = recipes[0], ranks or Alone()
    together = RankLanes(ranks, getattr(first.distributed, "compression", "none"))
    modules = reachable_modules(first.reach())
    alone = threads_of(lane_settings(first).threads)
    with (
        alone as threads,
        environment(first.settings, modules) as isolation,
        sources_forgotten(),
        speaking(ranks),
    ):
        engine = start(first, isolation)
        if not together.alone:
            course = " ".join(fingerprint(recipe) for recipe in recipes)
            Together(ranks, "none", engine.modules, course).meet()
        found, entrants = _on_all(ranks, lambda: _captured(recipes, engine, together))
        entrants = [_of_first(ranks, own) for own in entrants]
        fits = LaneFits(recipes, engine, found, entrants, together)
        _on_all(ranks, lambda: _traced(fits))
        if lane_settings(first).threads is None and fits.numbers >= WORTH_THREADS:
            torch.set_num_threads(threads)
        try:
            yield fits
        finally:
            fits.close()


def _captured(
    recipes: Sequence[Recipe], engine: EagerEngine, together: RankLanes
) -> tuple[Captured, list[list[Entrant]]]:
    """The program, and each recipe's fits."""
    found = captured(engine)
    together.demand_enough(found.draws.minibatches)
    seeded = [restarts_of(recipe, len(found.start)) for recipe in recipes]
    demand_room(found, lane_settings(recipes[0]), max(map(len, seeded)))
    starts = Starts(engine)
    return found, [entrants_of(own, starts, found) for own in seeded]


def _of_first(ranks: Ranks, entrants: list[Entrant]) -> list[Entrant]:
    """Fits that start where rank 0 has them."""
    rows = torch.stack([entrant.row for entrant in entrants])
    ranks.broadcast_(rows)
    return [replace(entrant, row=row) for entrant, row in zip(entrants, rows, strict=True)]


def _traced(fits: LaneFits) -> None:
    """Trace a step, of which other ranks need not know."""
    with speaking(Alone()):
        capturing(fits.trace)


def _on_all(ranks: Ranks, capture: Callable[[], Found]) -> Found:
    """What a function returns that captures; whatever goes wrong on one rank goes wrong on all."""
    if isinstance(ranks, Alone):
        return capture()
    try:
        found = capture()
    except Exception as error:
        ranks.gathered((str(error), isinstance(error, NotCapturedError)))
        raise
    failed = {rank: said for rank, said in enumerate(ranks.gathered(None)) if said is not None}
    for rank, (reason, not_captured) in failed.items():
        if not_captured:
            raise NotCapturedError(reason)
        raise LostRanksError(f"rank {rank} has failed: {reason}")
    return found


@contextmanager
def threads_of(count: int | None) -> Iterator[int]:
    """Inside, torch has so many threads, or one if nothing is said; gives how many it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or 1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
