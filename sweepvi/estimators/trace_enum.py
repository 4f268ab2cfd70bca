"""Pyro's ``TraceEnum_ELBO``: discrete latent variables are summed over exactly, by tensor variable elimination.

Obermeyer, Bingham, Jankowiak, Chiu, Pradhan, Rush & Goodman, "Tensor Variable Elimination for Plated Factor Graphs",
2019. Variables of the guide that are not summed over have the score function of DiCE: Foerster, Farquhar, Al-Shedivat,
Rocktäschel, Xing & Whiteson, "DiCE: The Infinitely Differentiable Monte-Carlo Estimator", 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pyro.infer.traceenum_elbo import TraceEnum_ELBO

from sweepvi.errors import Problem
from sweepvi.estimators.enumeration import (
    Infer,
    countable_by,
    marked,
    not_summed,
    nothing_enumerated,
    without_enumerated,
)
from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.sites import LatentSite
from sweepvi.guides.guide import Program
from sweepvi.keys import Key


@dataclass(frozen=True)
class TraceEnum(ParticleEstimator):
    """TraceEnum_ELBO: sums over discrete variables, in the guide or missing from it; no noise from them.

    A variable that the guide leaves out has its exact posterior, given the others: the ELBO is that of the model with
    the variable summed out, and so is the ELBO that the fit reports. One that the guide has is summed over in the
    expectation under the guide. Autoguides are made for the variables that are not summed over.
    """

    sums_out: ClassVar[bool] = True
    averages_particles: ClassVar[bool] = True

    enumerate: Annotated[
        Literal["parallel", "sequential"] | None,
        Key("how discrete variables are summed over that say nothing themselves (infer); null: they are not"),
    ] = "parallel"
    expand: Annotated[bool, Key("values enumerated at full size, for models that do not broadcast")] = False
    strict_enumeration_warning: Annotated[bool, Key("refuse a model in which nothing is enumerated")] = True

    def build(self) -> Elbo:
        """A new ``TraceEnum_ELBO``."""
        return _TraceEnum(self._marks(), strict_enumeration_warning=False, **self.options())

    def configured(self, model: Program) -> Program:
        """The model, its discrete variables marked as to be enumerated."""
        return marked(model, self._marks())

    def for_guide(self, model: Program) -> Program:
        """The model without the variables that are enumerated."""
        return without_enumerated(model)

    def misfits(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        """Also, variables that are neither in the guide nor summed over; and, if strict, nothing to sum over."""
        # The guide is marked only inside the fit: its own sites are seen here as their author left them.
        as_run = {
            name: replace(site, enumerated=site.enumerated or (site.countable and self.enumerate) or "")
            if site.in_guide
            else site
            for name, site in sites.items()
        }
        strict = nothing_enumerated(as_run) if self.strict_enumeration_warning else []
        return [*super().misfits(sites), *(not_summed(as_run) or strict)]

    def _marks(self) -> Infer:
        return countable_by({"enumerate": self.enumerate, "expand": self.expand})


class _TraceEnum(TraceEnum_ELBO):
    """Marks the guide's discrete variables, too."""

    def __init__(self, marks: Infer, **options: Any) -> None:
        super().__init__(**options)
        self.marks = marks

    def _get_traces(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return super()._get_traces(model, marked(guide, self.marks), args, kwargs)
