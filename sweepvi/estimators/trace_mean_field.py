"""Pyro's ``TraceMeanField_ELBO``: Kullback-Leibler divergences in closed form where possible.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, equation 10.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.trace_elbo import Trace_ELBO
from pyro.infer.trace_mean_field_elbo import TraceMeanField_ELBO
from pyro.infer.util import check_fully_reparametrized, torch_item
from torch import Tensor
from torch.distributions import kl_divergence

from sweepvi.estimators.estimator import Elbo, ParticleEstimator
from sweepvi.estimators.sites import distribution_name


@dataclass(frozen=True)
class TraceMeanField(ParticleEstimator):
    """TraceMeanField_ELBO: divergences from the prior in closed form where possible, from draws elsewhere.

    In closed form is right where nothing that the prior of a variable depends on depends in turn, in the guide, on that
    variable: here, where all variables that the model draws before it come before it in the guide, too. All others are
    estimated from their draws, which is right for every guide. Where Pyro is right, the values are Pyro's.

    Pyro 1.9.2 takes the closed form everywhere, and only warns of another order. It also takes the divergence of a
    delta for minus the log density of the prior, which drops the Jacobian with which an autoguide makes a constrained
    variable; and it scales the prior of a variable as the guide scales the variable.
    """

    averages_particles: ClassVar[bool] = True

    reparameterised_only: ClassVar[bool] = True

    def build(self) -> Elbo:
        """A new ELBO object."""
        return _TraceMeanField(**self.options())


class _TraceMeanField(TraceMeanField_ELBO):
    """Decides variable by variable."""

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        # Not the parent's own, which warns of an order of sites that is no problem here.
        return Trace_ELBO._get_trace(self, model, guide, args, kwargs)

    def _differentiable_loss_particle(self, model_trace: Any, guide_trace: Any) -> tuple[Any, Any]:
        elbo: Any = 0.0
        order = {name: place for place, name in enumerate(guide_trace.nodes)}
        # The model's latent variables before the one at hand: all that its prior can depend on.
        earlier: list[str] = []
        for name, site in _samples(model_trace).items():
            if site["is_observed"] or name not in order:
                elbo = elbo + site["log_prob_sum"]
                continue
            guide_site = guide_trace.nodes[name]
            check_fully_reparametrized(guide_site)
            divergence = None
            if all(order[other] < order[name] for other in earlier):
                divergence = _divergence(guide_site, site)
            if divergence is None:
                elbo = elbo + site["log_prob_sum"] - guide_site["score_parts"].entropy_term.sum()
            else:
                elbo = elbo - divergence
            earlier.append(name)
        for name, site in _samples(guide_trace).items():
            if name not in model_trace.nodes:
                check_fully_reparametrized(site)
                elbo = elbo - site["score_parts"].entropy_term.sum()
        loss: Any = torch_item(elbo)
        return -loss, -elbo


def _samples(trace: Any) -> dict[str, Any]:
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def _divergence(guide_site: Any, model_site: Any) -> Tensor | None:
    """The divergence in closed form, summed; None if there is none, or its closed form leaves something out."""
    if distribution_name(guide_site["fn"]) == "Delta":
        return None
    if not all(_same(guide_site[what], model_site[what]) for what in ("scale", "mask")):
        return None
    try:
        divergence = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return None
    if not isinstance(divergence, Tensor) or divergence.shape != guide_site["log_prob"].shape:
        return None
    return scale_and_mask(divergence, guide_site["scale"], guide_site["mask"]).sum()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other or (not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other)
