"""Pyro's ``EnergyDistance``: how far draws of the posterior predictive distribution are from the data.

E‖X − x‖^β − ½ E‖X − X′‖^β − λ E log p(Z), of X, X′ drawn given independent Z, Z′ of the guide: Gneiting & Raftery,
"Strictly Proper Scoring Rules, Prediction, and Estimation", 2007, equation 22; Székely & Rizzo, "Energy Statistics: A
Class of Statistics Based on Distances", 2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import validation_enabled
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from sweepvi.errors import ConfigError, Problem, listed
from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.frozen import SameMinibatches
from sweepvi.estimators.made_up import MakeUpData, made_up
from sweepvi.estimators.objective import ObjectiveElbo
from sweepvi.estimators.sites import distribution_name
from sweepvi.keys import Key


@dataclass(frozen=True)
class EnergyDistance(ParticleEstimator):
    """EnergyDistance: needs no density of the data, only draws of them that can be differentiated.

    Pyro 1.9.2 adds up log p(z) over particles instead of averaging it, so that their number changes what prior_scale
    means, and lets likelihoods pass that cannot be differentiated. In minibatches, squared distances are scaled, as
    there, which is not without bias.
    """

    objective: ClassVar[str] = "energy distance"
    objective_keys: ClassVar[tuple[str, ...]] = ("beta", "prior_scale")
    reparameterised_only: ClassVar[bool] = True

    num_particles: Annotated[int, Key("draws of the data, of which all pairs are compared", ge=2)] = 2
    beta: Annotated[float, Key("power of distances; less than 1 for heavy tails", gt=0, lt=2)] = 1.0
    prior_scale: Annotated[float, Key("factor on -log p of the latent variables, a regularisation", ge=0)] = 0.0

    def build(self) -> Elbo:
        """A new object."""
        return _EnergyDistance(self.beta, self.prior_scale, **self.options())


@dataclass(frozen=True)
class _Run:
    """One particle, or all at once."""

    observed: Mapping[str, Any]
    """The model's sites with data, drawn anew."""
    log_prior: Any


class _EnergyDistance(ObjectiveElbo):
    """Draws data from guide and model, and compares them with the data and with each other."""

    def __init__(self, beta: float, prior_scale: float, **options: Any) -> None:
        super().__init__(**options)
        self.beta, self.prior_scale = beta, prior_scale

    def objective(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
        """See the module."""
        if self.vectorize_particles and self.max_plate_nesting == float("inf"):
            with validation_enabled(False):  # which computes densities of the data: there may be none
                self._guess_max_plate_nesting(model, guide, args, kwargs)
        with SameMinibatches():
            runs: list[Any] = list(self._get_traces(model, guide, args, kwargs))
        error, spread = self._squares(runs)
        distance = error.pow(self.beta / 2).mean() - spread.pow(self.beta / 2).mean() / 2
        return distance - self.prior_scale * sum(run.log_prior for run in runs) / self.num_particles

    def _squares(self, runs: list[_Run]) -> tuple[Any, Any]:
        """Squared distances of the particles' draws to the data, and of all pairs to each other: a dimension each."""
        error: Any = 0.0
        spread: Any = 0.0
        first, second = torch.ones(self.num_particles, self.num_particles).triu(1).nonzero().unbind(1)
        for name, site in runs[0].observed.items():
            draws = [run.observed[name]["value"] for run in runs]
            every = draws[0] if self.vectorize_particles else torch.stack(draws)
            error = error + _square(every - site["infer"]["obs"], site)
            spread = spread + _square(every[first] - every[second], site)
        return error, spread

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        with MakeUpData():
            drawn = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        model_trace: Any = prune_subsample_sites(drawn)
        samples = {name: site for name, site in model_trace.nodes.items() if site["type"] == "sample"}
        observed = made_up(model_trace)
        _demand_differentiable(observed)
        log_prior: Any = 0.0
        if self.prior_scale > 0:
            model_trace.compute_log_prob(site_filter=lambda name, _: name not in observed)
            log_prior = sum(site["log_prob_sum"] for name, site in samples.items() if name not in observed)
        return _Run(observed, log_prior)


def _square(difference: Tensor, site: Any) -> Tensor:
    """Summed over all but the first dimension, with the site's scale and mask."""
    squares = difference.square()
    for _ in range(site["fn"].event_dim):
        squares = squares.sum(-1)
    scaled: Any = scale_and_mask(squares, site["scale"], site["mask"])
    return scaled.reshape(len(difference), -1).sum(1)


def _demand_differentiable(observed: Mapping[str, Any]) -> None:
    bad = [
        f"{name} ({distribution_name(site['fn'])})"
        for name, site in observed.items()
        if not getattr(site["fn"], "has_rsample", False)
    ]
    if bad:
        message = f"needs a likelihood whose draws can be differentiated, but those of {listed(bad)} cannot; use trace"
        raise ConfigError([Problem("estimator", message)])
