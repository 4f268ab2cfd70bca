"""Pyro's ``TraceGraph_ELBO``: Rao-Blackwellised score-function gradients, with baselines from the configuration.

Schulman, Heess, Weber & Abbeel, "Gradient Estimation Using Stochastic Computation Graphs", 2015. Baselines after Mnih
& Gregor, "Neural Variational Inference and Learning in Belief Networks", 2014.

On the same draws, its gradients are those of Pyro's class, but for three cases. Where a program branches on a draw in
Python (``if z.item():``), Pyro loses track of what depends on the draw, and its gradient is biased; here, everything
then counts as depending on it. A decaying average survives a minibatch of another size. A network that the guide has
as a baseline but did not register is trained, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

from torch import Tensor

from sweepvi.errors import Problem, listed, unknown
from sweepvi.estimators.baselines import Baseline, Baselines, Kind
from sweepvi.estimators.baselines.given import problems_of
from sweepvi.estimators.costs import CostElbo, Evaluation
from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.sites import LatentSite, entry_for
from sweepvi.keys import Key


@dataclass(frozen=True)
class TraceGraph(ParticleEstimator):
    """TraceGraph_ELBO: score-function gradients with fewer terms, and baselines."""

    reads_baselines: ClassVar[bool] = True
    varies: ClassVar[Mapping[str, str]] = {"baseline_beta": "baselines.beta"}

    baseline_beta: Annotated[float, Key("decay of sites' average baselines, where a site sets none", ge=0, lt=1)] = 0.9
    baselines: Annotated[
        Mapping[str, Kind | Baseline],
        Key("baseline by site, or glob over sites: none, decaying, network, value, or a mapping with more keys"),
    ] = field(default_factory=dict)

    def build(self) -> Elbo:
        """A new ELBO object, with networks of its own where baselines are such."""
        return _TraceGraph(Baselines(self.baselines, self.baseline_beta), **self.options())

    def misfits(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        """Also, baselines of sites that do not exist, or that have no score to multiply."""
        problems = super().misfits(sites)
        for glob in self.baselines:
            problems += self._misfit_of(glob, sites)
        for name, site in sites.items():
            problems += problems_of(name, site.baseline)
            if site.baseline and site.path:
                problems.append(Problem(f"guide: infer baseline of {name}", _no_use({name: site}, sites)))
        return problems

    def _misfit_of(self, glob: str, sites: Mapping[str, LatentSite]) -> list[Problem]:
        guides = {name: site for name, site in sites.items() if site.in_guide}
        matched = {name: site for name, site in guides.items() if fnmatchcase(name, glob)}
        key = f"estimator.baselines.{glob}"
        if not matched:
            return [Problem(key, unknown("latent variable in the guide", glob, guides))]
        counting = {entry_for(name, self.baselines) for name in matched}
        if glob not in counting:
            return [Problem(key, f"has no effect: {listed(sorted(filter(None, counting)))} goes before it")]
        if Baseline.of(self.baselines[glob]).kind != "none" and all(site.path for site in matched.values()):
            return [Problem(key, _no_use(matched, guides))]
        return []


def _no_use(matched: Mapping[str, LatentSite], sites: Mapping[str, LatentSite]) -> str:
    reparameterised = listed(f"{name} ({site.distribution})" for name, site in matched.items())
    fitting = listed(name for name, site in sites.items() if site.in_guide and not site.path) or "(none)"
    return (
        f"{reparameterised} is differentiated along its draws, which no baseline can improve; "
        f"latent variables that can have one: {fitting}"
    )


class _TraceGraph(CostElbo):
    """Subtracts a baseline from the cost of each draw."""

    def __init__(self, baselines: Baselines, **options: Any) -> None:
        super().__init__(**options)
        self.baselines = baselines

    def surrogate_loss(self, evaluations: list[Evaluation]) -> Tensor:
        """Scores times costs less baselines, and the loss that trains the baselines."""
        total: Any = 0.0
        for one in evaluations:
            total = total - one.path
            for name, term in one.terms.items():
                advantage, loss = self.baselines.subtracted(name, one.guide_trace, term.cost)
                total = total - (term.score * advantage).sum() + loss
        return total

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Evaluation:
        made = super()._get_trace(model, guide, args, kwargs)
        self.baselines.meet(made.guide_trace, {name: term.cost for name, term in made.terms.items()})
        return made
