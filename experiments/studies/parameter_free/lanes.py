"""Many fits of one posterior at once: Pyro's two normal guides with a leading dimension of lanes.

With one draw a step, the gradient of a lane is that of ``Trace_ELBO`` for ``AutoNormal`` or
``AutoMultivariateNormal``: both take log q of a reparameterised draw, whose derivative is that of the entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger, init_to_median
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to
from torch.func import grad_and_value, vmap
from torch.nn.functional import softplus

INIT_SCALE = 0.1
Sites: TypeAlias = dict[str, Tensor]


class Density:
    """A model's log density over unconstrained numbers ``[D]``, started at medians of the prior."""

    def __init__(self, model: Callable[[], Any], seeds: int) -> None:
        self.model, starts = model, []
        for seed in range(seeds):
            pyro.set_rng_seed(seed)
            nodes: dict[str, Any] = dict(poutine.trace(InitMessenger(init_to_median)(model)).get_trace().nodes)
            sites = {name: node for name, node in nodes.items() if node["type"] == "sample" and not node["is_observed"]}
            latent = {name: site for name, site in sites.items() if not site_is_subsample(site)}
            self._maps = {name: biject_to(site["fn"].support) for name, site in latent.items()}
            starts.append({name: self._maps[name].inv(site["value"]).detach() for name, site in latent.items()})
        self._shapes = {name: value.shape for name, value in starts[0].items()}
        self.starts = torch.stack([torch.cat([v.reshape(-1) for v in start.values()]) for start in starts])
        self.size = self.starts.shape[-1]

    def log_prob(self, z: Tensor) -> Tensor:
        apart, values = self._split(z), self._values(z)
        maps = ((self._maps[name], apart[name], values[name]) for name in values)
        volume = sum((to.log_abs_det_jacobian(u, value).sum() for to, u, value in maps), torch.zeros(()))
        return self._trace(values).log_prob_sum() + volume

    def sites(self, z: Tensor) -> Sites:
        """What the model calls its variables, deterministic ones too."""
        values = self._values(z)
        nodes: dict[str, Any] = dict(self._trace(values).nodes)
        named = {name: node for name, node in nodes.items() if node.get("infer", {}).get("_deterministic")}
        return values | {name: node["value"] for name, node in named.items()}

    def _values(self, z: Tensor) -> Sites:
        return {name: self._maps[name](value) for name, value in self._split(z).items()}

    def _trace(self, values: Sites) -> poutine.Trace:
        return poutine.trace(poutine.condition(self.model, values)).get_trace()

    def _split(self, z: Tensor) -> Sites:
        sizes = [shape.numel() for shape in self._shapes.values()]
        return {name: part.view(self._shapes[name]) for name, part in zip(self._shapes, z.split(sizes), strict=True)}


@dataclass(frozen=True)
class Guide:
    """A normal over unconstrained numbers: mean, deviations, and if full, the unit lower triangle."""

    density: Density
    full: bool

    def shapes(self) -> dict[str, torch.Size]:
        D = self.density.size
        sizes = {"loc": D, "scale": D} | ({"tril": D * (D - 1) // 2} if self.full else {})
        return {name: torch.Size((size,)) for name, size in sizes.items()}

    def start(self) -> Tensor:
        """Parameters at the start, one row a seed."""
        loc = self.density.starts
        scale = torch.full_like(loc, math.log(math.expm1(INIT_SCALE)))
        tril = loc.new_zeros((len(loc), self.shapes()["tril"].numel() if self.full else 0))
        return torch.cat([loc, scale, tril], -1)

    def negative_elbo(self, params: Tensor, noise: Tensor) -> Tensor:
        """An unbiased estimate from standard normal ``noise`` of shape [D]."""
        D = self.density.size
        z, scale = self.draw(params, noise), softplus(params[D : 2 * D])
        log_q = -scale.log().sum() - (noise**2).sum() / 2 - D / 2 * math.log(2 * math.pi)
        return log_q - self.density.log_prob(z)

    def draw(self, params: Tensor, noise: Tensor) -> Tensor:
        D = self.density.size
        loc, scale = params[:D], softplus(params[D : 2 * D])
        if self.full:
            row, column = torch.tril_indices(D, D, -1)
            lower = torch.zeros(D, D).index_put((row, column), params[2 * D :])
            noise = noise + lower @ noise
        return loc + scale * noise

    def gradient(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Gradients ``[K, P]`` of lanes ``[K, P]`` with noise ``[K, D]``."""
        each = vmap(grad_and_value(self.negative_elbo))
        return lambda params, noise: each(params, noise)[0]

    def score(self, params: Tensor, noise: Tensor, reference: dict[str, tuple[float, float]]) -> tuple[float, float]:
        """ELBO of one lane on draws ``[S, D]`` of noise, and the largest |mean − reference| in deviations."""
        with torch.no_grad():
            elbo = -float(vmap(self.negative_elbo, (None, 0))(params, noise).mean())
            if not reference or not math.isfinite(elbo):
                return elbo, math.nan
            sites = vmap(lambda noise: self.density.sites(self.draw(params, noise)))(noise)
        means = {}
        for name, value in sites.items():
            mean = value.mean(0)
            entries = {f"{name}[{i}]": float(x) for i, x in enumerate(mean.reshape(-1), 1)}
            means |= entries if mean.dim() else {name: float(mean)}
        return elbo, max(abs(means[name] - mean) / sd for name, (mean, sd) in reference.items())
