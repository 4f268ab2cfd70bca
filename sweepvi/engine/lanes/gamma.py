"""Gamma variates from noise that is handed in, with the implicit reparameterisation gradient.

Marsaglia & Tsang, "A Simple Method for Generating Gamma Variables", 2000; Figurnov, Mohamed & Mnih, "Implicit
Reparameterization Gradients", 2018. A rejection sampler needs an unknown number of tries; here there are so many that
none of them is accepted once in 10⁷ draws at the worst (concentration 1), and the mean is taken then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweepvi.private import standard_gamma_grad

TRIES = 6


class GammaOfNoise(torch.autograd.Function):
    """Standard gamma variates: of concentration (any shape), normals and uniforms [*shape, TRIES], uniforms [*shape].

    Differentiable in the concentration only.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(concentration: Tensor, normal: Tensor, uniform: Tensor, boost: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The variates, of the concentration's shape."""
        small = concentration < 1
        raised = torch.where(small, concentration + 1, concentration)
        d = (raised - 1 / 3).unsqueeze(-1)
        v = (1 + normal / (9 * d).sqrt()) ** 3
        tiny = torch.finfo(v.dtype).tiny
        accepted = (v > 0) & (uniform.log() < 0.5 * normal**2 + d - d * v + d * v.clamp_min(tiny).log())
        first = accepted.to(torch.int64).argmax(-1, keepdim=True)
        found = torch.where(accepted.any(-1), (d * v).gather(-1, first).squeeze(-1), raised)
        # Below 1, the density is unbounded at 0: Gamma(a) is Gamma(a + 1) times U^(1/a).
        return torch.where(small, found * boost ** (1 / concentration), found).clamp_min(tiny)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the gradient needs."""
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        """The gradient with respect to the concentration: minus dF/da over the density, F being the distribution."""
        concentration, value = ctx.saved_tensors
        return grads[0] * _ImplicitGradient.apply(concentration, value), None, None, None


class _ImplicitGradient(torch.autograd.Function):
    """Of a draw, with respect to the concentration; torch's function, which vmap would call lane by lane."""

    @staticmethod
    def forward(concentration: Tensor, value: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return standard_gamma_grad(concentration, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing: it has no gradient of its own."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> Any:
        """Elementwise: lanes are one more dimension."""
        lanes = [x.movedim(dim, 0) if dim is not None else x.unsqueeze(0) for x, dim in zip(args, in_dims, strict=True)]
        return _ImplicitGradient.apply(*torch.broadcast_tensors(*lanes)), 0
