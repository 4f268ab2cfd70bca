"""Pyro's ``Trace_MMD``: the maximum mean discrepancy of guide and prior in place of their divergence.

−E_q log p(x | z) + MMD(q(z), p(z)), MMD(q, p) = E k(z, z′) + E k(y, y′) − 2 E k(z, y) with z, z′ of q and y, y′ of p:
Zhao, Song & Ermon, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders", 2019, equation 6; Gretton,
Borgwardt, Rasch, Schölkopf & Smola, "A Kernel Two-Sample Test", 2012, equation 5 (the biased estimate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

import torch
from pyro import poutine
from pyro.infer.enum import get_importance_trace
from torch import Tensor

from sweepvi.errors import Problem, listed, unknown
from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.frozen import SameMinibatches
from sweepvi.estimators.kernels import Kernel, Kind
from sweepvi.estimators.objective import ObjectiveElbo
from sweepvi.estimators.sites import LatentSite, entry_for, is_latent
from sweepvi.keys import Key


@dataclass(frozen=True)
class MMD(ParticleEstimator):
    """Trace_MMD: draws of guide and prior are made alike by a kernel, site by site, instead of by their densities.

    Each site's draws are compared as a whole, all plates at once, with draws of the model that are not replayed; a
    minibatch's scale is on the likelihood alone. Each draw is compared with itself, too, as in Pyro: the estimate is
    too large by an amount that falls with the number of particles.
    """

    objective: ClassVar[str] = "-E log p(x | z) + MMD"
    objective_keys: ClassVar[tuple[str, ...]] = ("kernel", "kernels", "mmd_scale", "mmd_scales")
    unbiased: ClassVar[bool] = False
    reparameterised_only: ClassVar[bool] = True

    num_particles: Annotated[int, Key("draws of guide and prior that are compared", ge=2)] = 10
    kernel: Annotated[Kind | Kernel, Key("kernel of all sites but those of kernels: its kind, or a mapping")] = "rbf"
    kernels: Annotated[Mapping[str, Kind | Kernel], Key("kernels of their own by site, or glob over sites")] = field(
        default_factory=dict
    )
    mmd_scale: Annotated[float, Key("factor on the discrepancy of all sites but those of mmd_scales", ge=0)] = 1.0
    mmd_scales: Annotated[Mapping[str, float], Key("factors of their own by site, or glob over sites", ge=0)] = field(
        default_factory=dict
    )

    def build(self) -> Elbo:
        """A new object."""
        return _MMD(self, **self.options())

    def misfits(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        """Also, priors whose draws cannot be differentiated, and keys of sites that do not exist."""
        problems = super().misfits(sites)
        fixed = [
            f"{name} ({site.distribution})" for name, site in sites.items() if site.in_model and not site.model_path
        ]
        if fixed:
            message = f"needs a model whose draws can be differentiated, but those of {listed(fixed)} cannot; use trace"
            problems.append(Problem("estimator", message))
        compared = [name for name, site in sites.items() if site.in_model]
        for key, globs in (("kernels", self.kernels), ("mmd_scales", self.mmd_scales)):
            idle = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in compared)]
            what = "latent variable of the model"
            problems += [Problem(f"estimator.{key}.{glob}", unknown(what, glob, compared)) for glob in idle]
        return problems

    def kernel_of(self, site: str) -> Kernel:
        """The kernel of a site."""
        return Kernel.of(_of_site(site, self.kernels, self.kernel))

    def scale_of(self, site: str) -> float:
        """The factor on a site's discrepancy."""
        return _of_site(site, self.mmd_scales, self.mmd_scale)


def _of_site(site: str, by_glob: Mapping[str, Any], otherwise: Any) -> Any:
    entry = entry_for(site, by_glob)
    return otherwise if entry is None else by_glob[entry]


@dataclass(frozen=True)
class _Run:
    """One particle, or all at once."""

    log_likelihood: Tensor
    guide: dict[str, Tensor]
    """Draws by site."""
    prior: dict[str, Tensor]


class _MMD(ObjectiveElbo):
    """Collects draws of guide and prior, and compares them."""

    def __init__(self, keys: MMD, **options: Any) -> None:
        super().__init__(**options)
        self.keys = keys

    def objective(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
        """See the module."""
        runs: list[Any] = list(self._get_traces(model, guide, args, kwargs))
        total: Any = -sum(run.log_likelihood for run in runs) / self.num_particles
        for site in runs[0].guide:
            drawn, prior = (self._by_particle([part[site] for part in parts]) for parts in _sides(runs))
            total = total + self.keys.scale_of(site) * discrepancy(drawn, prior, self.keys.kernel_of(site))
        return total

    def _by_particle(self, draws: list[Tensor]) -> Tensor:
        """Shape [particles, features]."""
        every = draws[0] if self.vectorize_particles else torch.stack(draws)
        return every.reshape(self.num_particles, -1)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        with SameMinibatches():
            traces: Any = get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
            prior: Any = poutine.trace(model).get_trace(*args, **kwargs)
        model_trace, guide_trace = traces
        samples = {name: site for name, site in model_trace.nodes.items() if site["type"] == "sample"}
        latent = [name for name, site in samples.items() if is_latent(site)]
        likelihood: Any = sum(site["log_prob_sum"] for name, site in samples.items() if name not in latent)
        return _Run(
            likelihood,
            {name: guide_trace.nodes[name]["value"] for name in latent},
            {name: prior.nodes[name]["value"] for name in latent},
        )


def _sides(runs: list[_Run]) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    return [run.guide for run in runs], [run.prior for run in runs]


def discrepancy(x: Tensor, z: Tensor, kernel: Kernel) -> Tensor:
    """The squared maximum mean discrepancy of two samples, [N, features] and [M, features]: shape []."""
    return kernel(x, x).mean() + kernel(z, z).mean() - 2 * kernel(x, z).mean()
