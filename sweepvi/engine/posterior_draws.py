"""Draws of a fitted guide with what the model makes of them, many at a time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.func import vmap

from sweepvi.engine.full_data import Coverage
from sweepvi.engine.lanes.captured import Draws, NotCapturedError, capturing, demand_close
from sweepvi.engine.lanes.memory import Peak
from sweepvi.engine.lanes.randomness import Given
from sweepvi.engine.marginal import posterior_trace, sums_out
from sweepvi.engine.score import log_weight_of, traces
from sweepvi.estimators.sites import WHITENED, is_placed
from sweepvi.guides.guide import Program
from sweepvi.private import is_deterministic, is_minibatch, is_subsample, transformable
from sweepvi.problem import Problem

AT_ONCE = 250
"""Draws that are made together, at most."""

BYTES = 1 << 28
"""Memory that draws which are made together may take."""

Draw: TypeAlias = dict[str, Tensor]
"""Values by site; under :data:`LOG_WEIGHT`, log p(data, z) - log q(z), float64, if that is asked for."""

LOG_WEIGHT = "log weight of the draw"


def posterior_draws(
    programs: Mapping[str, Program], problem: Problem, n: int, seed: int, seen: Coverage, weighed: bool
) -> Draw:
    """Values by site, each of shape [n, …]: the first are the same, up to rounding, whatever their number.

    They are made together where the programs can be vectorised over draws, and one by one where not: where they branch
    on a value, or draw in a way that is not known.

    Args:
        programs: model and guide, with the fitted parameters.
        problem: with the data.
        n: how many draws.
        seed: at least 0.
        seen: how much of the data they are to see.
        weighed: whether the log weight of each is wanted, too.

    """

    def one() -> Draw:
        with seen.plates():
            model, guide = traces(programs, problem)
            weight = {LOG_WEIGHT: log_weight_of(programs, problem, model, guide).double()} if weighed else {}
            return _values(programs, problem, model, guide) | weight

    if n == 0:
        return {}
    try:
        return capturing(lambda: _Together(one, seed)(n))
    except NotCapturedError:
        pyro.set_rng_seed(seed)
        return _stacked([one() for _ in range(n)])


class _Together:
    """Draws by one function of the noise of each; ``NotCapturedError`` if that is not what the programs do."""

    def __init__(self, one: Callable[[], Draw], seed: int) -> None:
        self._one, self._seed = one, seed
        others = random.getstate(), repr(np.random.get_state())
        with transformable(), Peak() as peak:
            found, self._draws = Draws.of(one)
        if self._draws.minibatches or others != (random.getstate(), repr(np.random.get_state())):
            raise NotCapturedError("not all that it draws is torch's")
        self._names = list(found)
        self._each = max(1, min(AT_ONCE, BYTES // max(1, peak.bytes)))
        self._demand_equal()

    def __call__(self, n: int) -> Draw:
        parts = [self._part(start, min(self._each, n - start)) for start in range(0, n, self._each)]
        columns = zip(*parts, strict=True)
        return dict(zip(self._names, map(torch.cat, columns), strict=True))

    def _part(self, start: int, count: int) -> tuple[Tensor, ...]:
        numbers = torch.arange(start, start + count)
        noise = self._draws.noise.filled(torch.tensor([self._seed]), numbers)
        rows = {sort: row[:, 0] for sort, row in noise.items()}

        def of_draw(number: Tensor, row: Any) -> tuple[Tensor, ...]:
            del number
            found = self._draws.served(self._one, row, [])
            return tuple(found[name] for name in self._names)

        with transformable(), torch.no_grad():
            return vmap(of_draw, randomness="error")(numbers, rows)

    def _demand_equal(self) -> None:
        """Compare the first draw with the programs as they are."""
        ours = self._part(0, 1)
        noise = self._draws.noise.filled(torch.tensor([self._seed]), torch.arange(1))
        own = self._draws.noise.of_lane({sort: row[0, 0] for sort, row in noise.items()})
        with transformable(), Given(own, in_place=True):
            theirs = self._one()
        for mine, name in zip(ours, self._names, strict=True):
            kind = torch.float64 if theirs[name].dtype == torch.float64 else torch.float32
            demand_close(name, mine[0].to(kind), theirs[name].to(kind))


def _stacked(draws: list[Draw]) -> Draw:
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


def _values(programs: Mapping[str, Program], problem: Problem, model: Any, guide: Any) -> Draw:
    """The guide's latent variables, those summed over, and what the model computes from them."""
    if sums_out(model, guide):
        model = posterior_trace(programs, problem, model, guide)
    nodes: Any = model.nodes.items()
    sites: dict[str, Any] = {name: site for name, site in nodes if site["type"] == "sample"}
    return {name: torch.as_tensor(site["value"]).detach() for name, site in sites.items() if _is_drawn(site)}


def _is_drawn(site: Any) -> bool:
    if is_subsample(site):
        return is_minibatch(site)
    return site["name"] != WHITENED and (not site["is_observed"] or is_deterministic(site) or is_placed(site))
