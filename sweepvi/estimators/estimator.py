"""What an estimator is: a recipe for an object that estimates the gradient of an objective."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

from sweepvi.errors import Problem, listed
from sweepvi.estimators.sites import LatentSite
from sweepvi.guides.guide import Program
from sweepvi.keys import Key, Keyed


class Elbo(Protocol):
    """What is used of Pyro's ELBO objects, and of objects with other objectives."""

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """An estimate of the objective, with the sign that makes it a loss."""
        ...

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The same, an estimate of its gradient left in the parameters' ``.grad``."""
        ...


@dataclass(frozen=True)
class Estimator(Keyed, ABC):
    """Builds a fresh ELBO object for every fit: Pyro's objects remember the first model that they see."""

    objective: ClassVar[str] = "-ELBO"
    """What is minimised. Only estimators of one objective can be compared by their gradients."""
    objective_keys: ClassVar[tuple[str, ...]] = ()
    """The keys that are part of the objective: with others, it is another."""
    unbiased: ClassVar[bool] = True
    """Whether the mean of the estimates is the gradient of the objective."""
    reparameterised_only: ClassVar[bool] = False
    """Whether every latent variable of the guide must be a differentiable function of its noise."""
    reads_baselines: ClassVar[bool] = False
    """Whether a guide's ``infer={"baseline": …}`` is used."""
    sums_out: ClassVar[bool] = False
    """Whether latent variables of the model may be missing from the guide: they are summed or sampled by themselves."""

    averages_particles: ClassVar[bool] = False
    """Whether loss and gradient of several particles are the means of those of single ones, which nothing connects."""

    pathwise: ClassVar[bool] = True
    """Whether, where all draws are differentiable functions of noise, the gradient is the derivative of the loss."""

    varies: ClassVar[Mapping[str, str]] = {}
    """Keys that may be another number in each of many fits that run as one program: key → where the object that
    :meth:`build` makes has that number (``"baselines.beta"``), which may be a tensor there."""

    num_particles: Annotated[int, Key("draws averaged in each gradient", ge=1)] = 1

    @property
    def minimised(self) -> str:
        """The objective with the values of its keys: ``-Rényi bound (alpha=0.5)``."""
        keys = listed(f"{key}={getattr(self, key)}" for key in self.objective_keys)
        return f"{self.objective} ({keys})" if keys else self.objective

    @abstractmethod
    def build(self) -> Elbo:
        """A new ELBO object, used by one fit only."""

    def configured(self, model: Program) -> Program:
        """The model as the estimator needs it; the guide is built for it, and the fit is scored with it."""
        return model

    def for_guide(self, model: Program) -> Program:
        """The configured model as an autoguide is to see it: without variables that need no guide."""
        return model

    def misfits(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        """What is wrong with using this estimator for a model and guide with these latent variables, by name."""
        return [*self._unread_baselines(sites), *self._not_reparameterised(sites), *self._missing(sites)]

    def _unread_baselines(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        names = [name for name, site in sites.items() if site.baseline]
        if self.reads_baselines or not names:
            return []
        message = f"the guide has baselines (infer) at {listed(names)}, which only estimator=trace_graph uses"
        return [Problem("estimator", message)]

    def _not_reparameterised(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        names = [f"{name} ({site.distribution})" for name, site in sites.items() if site.in_guide and not site.path]
        if not self.reparameterised_only or not names:
            return []
        fitting = "trace, trace_graph, rloo or vimco"
        message = f"needs a guide whose draws can be differentiated, but those of {listed(names)} cannot; use {fitting}"
        return [Problem("estimator", message)]

    def _missing(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        names = [name for name, site in sites.items() if not site.in_guide]
        if self.sums_out or not names:
            return []
        known = listed(name for name, site in sites.items() if site.in_guide) or "(none)"
        message = f"has no {listed(names)}, which the model has; its own: {known}. trace_enum sums over discrete ones"
        return [Problem("guide", message)]


@dataclass(frozen=True)
class ParticleEstimator(Estimator, ABC):
    """What most estimators share: draws one by one or all at once."""

    vectorize_particles: Annotated[bool, Key("evaluate all draws at once (the model must broadcast)")] = False
    max_plate_nesting: Annotated[
        int | None, Key("dimensions used by plates; null counts them in a first run", ge=0)
    ] = None

    def options(self) -> dict[str, Any]:
        """The arguments of Pyro's class that these keys are."""
        nesting = math.inf if self.max_plate_nesting is None else self.max_plate_nesting
        return {
            "num_particles": self.num_particles,
            "vectorize_particles": self.vectorize_particles,
            "max_plate_nesting": nesting,
        }
