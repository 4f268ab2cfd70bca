"""Fresh draws of a finished fit: what they weigh, and the values of what the model is about."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sweepvi.diagnostics import ImportanceWeights, importance_weights
from sweepvi.engine.marginal import independent_of_summed, sums_out
from sweepvi.engine.numerical import MAYBE_NUMERICAL, is_numerical
from sweepvi.engine.score import log_weight_of, traces
from sweepvi.estimators.sites import WHITENED, is_latent, is_placed
from sweepvi.guides.guide import Program
from sweepvi.posterior import Posterior, scalar_names, summarised
from sweepvi.private import is_deterministic
from sweepvi.problem import Problem

POSTERIOR_SEED = 2_000_003
"""Of the draws that are summarised: other noise than that by which the best restart was chosen."""

MOST_NUMBERS = 20_000_000
"""Values of all draws together that are kept, at most."""

LEAST_DRAWS = 1000
"""Fewer make no table: quantiles of 5 % would be by fewer than 50 draws."""


@dataclass(frozen=True)
class Sites:
    """What of a program is summarised."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of continuous latent variables and ``pyro.deterministic`` sites, in the model's order."""
    latent: tuple[str, ...]
    """Continuous latent variables."""
    points: tuple[str, ...]
    """Those of them that the guide gives the same value in all draws: it has no density there."""

    @property
    def size(self) -> int:
        """How many scalars there are."""
        return sum(map(math.prod, self.shapes.values()))

    def without_values(self) -> Sites:
        """The same, of which no value is kept."""
        return Sites({}, self.latent, self.points)

    def __call__(self, programs: Mapping[str, Program], problem: Problem) -> list[Tensor]:
        """Of one draw: its log weight, shape [], and the value of each site."""
        model, guide = traces(programs, problem)
        weight = log_weight_of(programs, problem, model, guide)
        return [weight, *(_value(model.nodes.get(name), shape, weight) for name, shape in self.shapes.items())]


def sites_of(programs: Mapping[str, Program], problem: Problem) -> Sites:
    """Those of programs, in two runs of them; none if the model's own arithmetic fails. Draws: seed afterwards."""
    try:
        return _sites(programs, problem)
    except MAYBE_NUMERICAL as error:
        if not is_numerical(error):
            raise
        return Sites({}, (), ())


def _sites(programs: Mapping[str, Program], problem: Problem) -> Sites:
    (model, guide), (again, _) = traces(programs, problem), traces(programs, problem)
    nodes: dict[str, Any] = {name: site for name, site in model.nodes.items() if site["type"] == "sample"}
    shown = {name: site for name, site in nodes.items() if _is_shown(site) and _is_whole(site)}
    if sums_out(model, guide):
        free = independent_of_summed(programs, problem, model, guide)
        # What depends on variables that are summed over has a distribution given the guide's draw, not a value.
        shown = {name: site for name, site in shown.items() if not is_deterministic(site) or name in free}
        shown = {name: site for name, site in shown.items() if name in guide or not is_latent(site)}
    alike = {name for name in shown if name in again and again.nodes[name]["value"].shape == shown[name]["value"].shape}
    shown = {name: site for name, site in shown.items() if name in alike}
    latent = tuple(name for name, site in shown.items() if is_latent(site) or is_placed(site))
    points = tuple(name for name in latent if torch.equal(shown[name]["value"], again.nodes[name]["value"]))
    return Sites({name: tuple(site["value"].shape) for name, site in shown.items()}, latent, points)


def _is_shown(site: Any) -> bool:
    value = site["value"]
    if site["name"] == WHITENED or not isinstance(value, Tensor) or value.is_complex():
        return False
    if is_deterministic(site):
        return True
    return (is_latent(site) or is_placed(site)) and value.is_floating_point() and not _is_discrete(site["fn"])


def _is_discrete(distribution: Any) -> bool:
    try:
        return bool(distribution.support.is_discrete)
    except (NotImplementedError, AttributeError):
        return False


def _is_whole(site: Any) -> bool:
    """Whether a site is outside of minibatches, whose entries are others in each draw."""
    return all(frame.full_size in (None, frame.size) for frame in site["cond_indep_stack"])


def _value(site: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """A site's value; NaN where a draw has no such site, or of another shape."""
    if site is None or tuple(site["value"].shape) != shape:
        return like.new_full(shape, math.nan)
    value = site["value"].detach()
    return value if value.is_floating_point() else value.to(torch.get_default_dtype())


@dataclass(frozen=True)
class FreshDraws:
    """What fresh draws of a fit show."""

    sites: Sites
    weights: ImportanceWeights | None = None
    """None if there were to be no draws but those of the score."""
    posterior: Posterior | None = None
    """None also if the model has no such site, or too many to be kept for enough draws."""


def concluded(sites: Sites, columns: Sequence[Tensor]) -> FreshDraws:
    """What draws show, from what ``sites`` has returned for each: tensors of shape [draws, …]."""
    log_weights, *values = columns
    weights = importance_weights(log_weights.double())
    if not values or len(log_weights) < 2:
        return FreshDraws(sites, weights, None)
    flat = torch.cat([value.reshape(len(value), -1) for value in values], 1)
    return FreshDraws(sites, weights, summarised(scalar_names(sites.shapes), flat, weights))


def room_for(sites: Sites, draws: int) -> tuple[Sites, int, str]:
    """Sites and draws so that their values can be kept, and a note if not all that was wanted can be.

    Args:
        sites: of the program.
        draws: wanted.

    """
    room = MOST_NUMBERS // max(1, sites.size)
    if draws <= room:
        return sites, draws, ""
    if room < min(LEAST_DRAWS, draws):
        note = f"no table of the posterior: {sites.size:,} values a draw are too many to keep"
        return sites.without_values(), draws, note
    return sites, room, f"the posterior is by {room:,} draws: more of {sites.size:,} values each are too many to keep"


class Kept:
    """A weight for :func:`sweepvi.engine.score.log_weights` that keeps what it sees, of the first ``draws``."""

    def __init__(self, sites: Sites, draws: int) -> None:
        self.sites, self._draws = sites, draws
        self._rows: list[list[Tensor]] = []

    def __call__(self, programs: Mapping[str, Program], problem: Problem) -> Tensor:
        """The log weight of a draw, shape []; NaN if the model's own arithmetic fails."""
        try:
            row = self.sites(programs, problem)
        except MAYBE_NUMERICAL as error:
            if not is_numerical(error):
                raise
            row = [torch.tensor(math.nan), *(torch.full(shape, math.nan) for shape in self.sites.shapes.values())]
        if len(self._rows) < self._draws:
            self._rows.append([value.cpu() for value in row])
        return row[0]

    def concluded(self) -> FreshDraws:
        """What the draws show."""
        if not self._rows:
            return FreshDraws(self.sites)
        return concluded(self.sites, [torch.stack(column) for column in zip(*self._rows, strict=True)])
