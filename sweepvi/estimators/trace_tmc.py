"""Pyro's ``TraceTMC_ELBO``: tensor Monte Carlo, importance weights of all combinations of several draws a site.

Aitchison, "Tensor Monte Carlo: Particle Methods for the GPU Era", 2019; by tensor variable
elimination: Obermeyer, Bingham, Jankowiak, Chiu, Pradhan, Rush & Goodman, "Tensor Variable Elimination for Plated
Factor Graphs", 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pyro.infer.tracetmc_elbo import TraceTMC_ELBO
from pyro.ops import packed
from pyro.ops.contract import einsum
from torch import Tensor

from sweepvi.errors import ConfigError, Problem, listed
from sweepvi.estimators.enumeration import (
    Infer,
    countable_by,
    marked,
    not_summed,
    nothing_enumerated,
    without_enumerated,
)
from sweepvi.estimators.estimator import ParticleEstimator
from sweepvi.estimators.sites import LatentSite, distribution_name, is_latent
from sweepvi.guides.guide import Program
from sweepvi.keys import Key


@dataclass(frozen=True)
class TraceTMC(ParticleEstimator):
    """TraceTMC_ELBO: a bound from all combinations of several draws a site; sums over discrete variables.

    With ``num_samples``, each variable of the guide is drawn that many times, and each discrete one of the model alone
    is drawn from its prior that many times instead of summed over; in a gradient, that prior is held fixed in its role
    as proposal. The bound is that of the importance weights of all combinations, which plates and conditional
    independence make cheap.

    Pyro 1.9.2 is wrong in five cases, of which two are put right here: of a variable that is summed over in the model,
    its prior counts twice; and draws that depend on other draws are weighed as if each combination had been drawn from
    its own proposal, not from the mixture of all, so that the mean weight is not the evidence. The others are refused:
    a guide whose draws cannot be differentiated, which gets no gradient; sequential enumeration, which adds up the
    bounds of the values; and a scale, as of minibatches, or a mask, which ends up inside of the sum over values.
    """

    objective: ClassVar[str] = "-TMC bound"
    reparameterised_only: ClassVar[bool] = True
    sums_out: ClassVar[bool] = True
    pathwise: ClassVar[bool] = False

    enumerate: Annotated[
        Literal["parallel"] | None,
        Key("how discrete variables are summed over that say nothing themselves (infer); null: they are not"),
    ] = "parallel"
    expand: Annotated[bool, Key("values at full size: with num_samples, new draws for each draw of the parents")] = (
        False
    )
    strict_enumeration_warning: Annotated[bool, Key("refuse a model in which nothing is enumerated or drawn often")] = (
        True
    )
    num_samples: Annotated[
        int | None, Key("draws of every site that says nothing itself; null sums, or draws one", ge=2)
    ] = None
    tmc: Annotated[
        Literal["diagonal", "mixture"], Key("which of its parents' draws each draw is made for: the same, or any")
    ] = "diagonal"

    def conflicts(self) -> dict[str, str]:
        """Several draws are a kind of enumeration."""
        if self.num_samples is not None and self.enumerate is None:
            return {"num_samples": "needs enumerate=parallel"}
        return {}

    def build(self) -> Any:
        """A new ELBO object."""
        return _TraceTMC(self._of_guide(), strict_enumeration_warning=False, **self.options())

    def configured(self, model: Program) -> Program:
        """The model, its discrete variables marked as to be enumerated or drawn often."""
        return marked(model, countable_by(self._infer()))

    def for_guide(self, model: Program) -> Program:
        """The model without the variables that are enumerated, or drawn from their prior."""
        return without_enumerated(model)

    def misfits(self, sites: Mapping[str, LatentSite]) -> list[Problem]:
        """Also, variables that are neither in the guide nor summed over; and, if strict, nothing to do for TMC."""
        strict = [] if self.num_samples or not self.strict_enumeration_warning else nothing_enumerated(sites)
        return [*super().misfits(sites), *(not_summed(sites) or strict)]

    def _infer(self) -> dict[str, Any]:
        infer: dict[str, Any] = {"enumerate": self.enumerate, "expand": self.expand}
        return infer if self.num_samples is None else {**infer, "num_samples": self.num_samples, "tmc": self.tmc}

    def _of_guide(self) -> Infer:
        if self.num_samples is None:
            return lambda site: {}
        infer = self._infer()
        # Deltas, with which autoguides place what they computed from draws, are no draws: drawn often, they are NaN.
        return lambda site: {} if "enumerate" in site["infer"] or distribution_name(site["fn"]) == "Delta" else infer


class _TraceTMC(TraceTMC_ELBO):
    """Pyro's traces, with weights of its own."""

    def __init__(self, marks: Infer, **options: Any) -> None:
        super().__init__(**options)
        self.marks = marks

    def _get_traces(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return super()._get_traces(model, marked(guide, self.marks), args, kwargs)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        """Minus the bound, averaged over particles."""
        pairs: Any = self._get_traces(model, guide, args, kwargs)
        return -sum(_log_mean_weight(*pair) for pair in pairs) / self.num_particles


def _log_mean_weight(model_trace: Any, guide_trace: Any) -> Any:
    """The log of the mean weight of all combinations of draws, summed over plates; a scalar tensor."""
    for trace in (model_trace, guide_trace):
        _demand_no_scale_nor_mask(trace)
    plates = {*model_trace.plate_to_symbol.values(), *guide_trace.plate_to_symbol.values()}
    factors = [site["packed"]["log_prob"] for site in _samples(model_trace).values()]
    for site in _samples(guide_trace).values():
        factors.append(packed.neg(_log_proposal(site, plates)))
    for name, site in _samples(model_trace).items():
        if name not in guide_trace and _is_drawn(site):
            held = _log_proposal(site, plates)
            factors.append(_with_dims(-held.detach(), held._pyro_dims))
    equation = ",".join(factor._pyro_dims for factor in factors) + "->"
    backend = "pyro.ops.einsum.torch_log"
    (total,) = einsum(equation, *factors, plates="".join(plates), backend=backend, modulo_total=False)
    return total


def _log_proposal(site: Any, plates: set[str]) -> Any:
    """The log density that a site's draws have, times how many there are: a packed tensor.

    A draw that is weighed with every draw of its parents comes from the mixture of what they propose.
    """
    log_prob = site["packed"]["log_prob"]
    if not _is_drawn(site):
        return log_prob
    own, dims = site["infer"]["_enumerate_symbol"], log_prob._pyro_dims
    parents = [dim for dim in dims if dim != own and dim not in plates]
    count = math.log(site["infer"]["num_samples"])
    if not parents or site["infer"].get("expand"):
        return _with_dims(log_prob + count, dims)
    if site["infer"].get("tmc", "diagonal") == "diagonal":
        for other in parents[1:]:
            log_prob = log_prob.diagonal(dim1=dims.index(parents[0]), dim2=dims.index(other))
            dims = dims.replace(parents[0], "").replace(other, "") + parents[0]
        parents = parents[:1]
    axes = [dims.index(dim) for dim in parents]
    mixed = log_prob.logsumexp(axes) - math.log(math.prod(log_prob.shape[axis] for axis in axes))
    return _with_dims(mixed + count, "".join(dim for dim in dims if dim not in parents))


def _with_dims(tensor: Any, dims: str) -> Any:
    tensor._pyro_dims = dims
    return tensor


def _samples(trace: Any) -> dict[str, Any]:
    return {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}


def _is_drawn(site: Any) -> bool:
    return is_latent(site) and bool(site["infer"].get("enumerate")) and site["infer"].get("num_samples") is not None


def _demand_no_scale_nor_mask(trace: Any) -> None:
    sites = _samples(trace)
    scaled = [name for name, site in sites.items() if isinstance(site["scale"], Tensor) or site["scale"] != 1]
    hidden = [name for name, site in sites.items() if is_latent(site) and site["mask"] is not None]
    if scaled or hidden:
        message = (
            f"cannot weigh what is scaled, as in minibatches, or masked: {listed(scaled or hidden)}; use trace_enum"
        )
        raise ConfigError([Problem("estimator", message)])
