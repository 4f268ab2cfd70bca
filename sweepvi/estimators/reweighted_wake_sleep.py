"""Reweighted wake-sleep: Bornschein & Bengio, "Reweighted Wake-Sleep", 2015, equations 4, 6 and 8; Le, Kosiorek,
Siddharth, Teh & Wood, "Revisiting Reweighted Wake-Sleep for Models with Stochastic Control Flow", 2019.

The model's parameters follow the importance-weighted bound. The guide's minimise KL(p(z | x) || q(z | x)): awake, on
the guide's own draws, weighted by p(x, z) / q(z | x); asleep, on pairs of z and x that the model makes up.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.infer.enum import get_importance_trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from sweepvi.errors import ConfigError, Problem, listed
from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.frozen import SameMinibatches, at_draws, stochastic
from sweepvi.estimators.made_up import MakeUpData, made_up
from sweepvi.estimators.multi_sample import BoundElbo, Weighted, weighted
from sweepvi.keys import Key


@dataclass(frozen=True)
class ReweightedWakeSleep(ParticleEstimator):
    """ReweightedWakeSleep: no gradient goes through draws, so that discrete ones need no score function.

    The loss is minus the importance-weighted bound. The sleep phase needs a guide that sees data: it calls
    ``guide(*args, observations={site: value}, **kwargs)`` with data that the model has made up, in the wake phase
    ``guide(*args, **kwargs)``.
    """

    objective: ClassVar[str] = "-IWAE bound for the model, wake-sleep loss for the guide"
    objective_keys: ClassVar[tuple[str, ...]] = ("insomnia",)
    unbiased: ClassVar[bool] = False
    pathwise: ClassVar[bool] = False

    num_particles: Annotated[int, Key("draws that are weighted in the wake phase", ge=2)] = 8
    insomnia: Annotated[
        float, Key("share of the wake phase in the guide's gradient; the rest is asleep", ge=0, le=1)
    ] = 1.0
    model_has_params: Annotated[
        bool, Key("false leaves out the wake phase if insomnia is 0; the loss is then that of the sleep phase")
    ] = True
    num_sleep_particles: Annotated[
        int | None, Key("draws of the model in the sleep phase; null: num_particles", ge=1)
    ] = None

    def build(self) -> Elbo:
        """A new object."""
        asleep = self.num_particles if self.num_sleep_particles is None else self.num_sleep_particles
        return _ReweightedWakeSleep(self.insomnia, self.model_has_params, asleep, **self.options())


class _ReweightedWakeSleep(BoundElbo):
    """The wake phase has the importance-weighted bound for its loss; the sleep phase comes on top."""

    def __init__(self, insomnia: float, model_has_params: bool, num_sleep_particles: int, **options: Any) -> None:
        super().__init__(**options)
        self.insomnia = insomnia
        self.wakes = model_has_params or insomnia > 0
        self.num_sleep_particles = num_sleep_particles

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the importance-weighted bound; without a wake phase, the loss of the sleep phase."""
        with torch.no_grad():
            asleep = self._sleep_loss(model, guide, args, kwargs) if self.insomnia < 1 else None
        if self.wakes or asleep is None:
            return super().loss(model, guide, *args, **kwargs)
        return asleep.item()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The same; gradients of both phases are left in the parameters."""
        loss = super().loss_and_grads(model, guide, *args, **kwargs) if self.wakes else None
        if self.insomnia == 1:
            assert loss is not None
            return loss
        asleep = self._sleep_loss(model, guide, args, kwargs)
        if asleep.requires_grad:
            ((1 - self.insomnia) * asleep).backward(retain_graph=self.retain_graph)
        return asleep.item() if loss is None else loss

    def surrogate_bound(self, particles: Weighted) -> Tensor:
        """Normalised weights, held fixed, times log p for the model and log q for the guide."""
        share = torch.softmax(particles.log_weight.detach(), 0)
        return (share * (particles.log_p + self.insomnia * particles.log_q)).sum()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        with SameMinibatches(), torch.enable_grad():
            with torch.no_grad():
                drawn: Any = poutine.trace(guide).get_trace(*args, **kwargs)
            # Detaching the draws of one run would not do: what autoguides compute from them would still carry gradient.
            fixed = at_draws(guide, drawn, {name: site["value"] for name, site in stochastic(drawn).items()})
            traces: Any = get_importance_trace("flat", self.max_plate_nesting, model, fixed, args, kwargs)
        model_trace, guide_trace = traces
        _demand_fixed_draws(guide_trace)
        return weighted(model_trace, guide_trace)

    def _sleep_loss(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
        """−log q of the model's own draws, given the data that came with them: shape []."""
        _demand_observations(guide)
        runs = self.num_sleep_particles
        if self.vectorize_particles and runs > 1:
            if self.max_plate_nesting == float("inf"):
                self._guess_max_plate_nesting(model, guide, args, kwargs)
            plate = pyro.plate("num_sleep_particles_vectorized", runs, dim=-int(self.max_plate_nesting))
            model, guide, runs = plate(model), plate(guide), 1
        total: Any = sum(_log_q_of_dream(model, guide, args, kwargs) for _ in range(runs))
        return -total / self.num_sleep_particles


def _log_q_of_dream(model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
    with SameMinibatches():
        with torch.no_grad(), MakeUpData():
            dream: Any = poutine.trace(model).get_trace(*args, **kwargs)
        seen = {name: site["value"] for name, site in made_up(dream).items()}
        replayed = poutine.replay(guide, trace=dream)
        guide_trace: Any = poutine.trace(replayed).get_trace(*args, **{**kwargs, "observations": seen})
    _demand_no_others(stochastic(guide_trace), dream)
    log_q: Any = prune_subsample_sites(guide_trace).log_prob_sum()
    return log_q


def _demand_observations(guide: Any) -> None:
    function = guide.forward if isinstance(guide, torch.nn.Module) else guide
    parameters = inspect.signature(function).parameters.values()
    takes = any(parameter.kind is parameter.VAR_KEYWORD or parameter.name == "observations" for parameter in parameters)
    if takes and not isinstance(guide, AutoGuide):
        return
    message = (
        "less than 1 has a sleep phase, which needs a guide that takes observations=None, a mapping from site to data "
        "that the model has made up, to be used instead of the data; this one does not. Use insomnia=1"
    )
    raise ConfigError([Problem("estimator.insomnia", message)])


def _demand_no_others(drawn: Any, dream: Any) -> None:
    others = [name for name in drawn if name not in dream.nodes]
    if others:
        message = f"less than 1 has a sleep phase, but the model has no {listed(others)}, which the guide draws"
        raise ConfigError([Problem("estimator.insomnia", message)])


def _demand_fixed_draws(guide_trace: Any) -> None:
    moving = [name for name, site in guide_trace.nodes.items() if site["type"] == "sample" and _moves(site["value"])]
    if moving:
        message = (
            f"needs a guide that draws {listed(moving)}; this one computes it from parameters, with no density to fit"
        )
        raise ConfigError([Problem("estimator", message)])


def _moves(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
