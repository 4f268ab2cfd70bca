"""A normal through affine coupling layers, and then through an affine map: a flow that starts as a full-rank normal.

Dinh, Sohl-Dickstein & Bengio, "Density Estimation Using Real NVP", 2017, equations 7 and 8. For variational inference,
with large batches and sticking the landing: Agrawal & Domke, "Disentangling Impact of Capacity, Objective, Batchsize,
Estimators, and Step-Size on Flow VI", 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_transform import TransformModule
from pyro.distributions.transforms import LowerCholeskyAffine
from pyro.infer import autoguide
from torch import Tensor, nn
from torch.distributions import constraints

from sweepvi.guides.guide import Program, ScaledAutoGuide
from sweepvi.keys import Key

NARROW = 32
"""Width from which on hidden units count for less each, so that all together do not count for more."""

LARGEST = 2.0
"""Of the logarithm of a factor of one layer, softly."""


@dataclass(frozen=True)
class AutoRealNVP(ScaledAutoGuide):
    """A full-rank normal bent by coupling layers: skew, funnels and curved posteriors."""

    flow: ClassVar[bool] = True

    start_keys: ClassVar[tuple[str, ...]] = ("init", "init_scale")

    num_transforms: Annotated[int, Key("coupling layers, each moving half of the coordinates", ge=1)] = 6
    hidden_dim: Annotated[int | None, Key("width of the networks; null takes 32, or 2 a latent scalar", ge=1)] = None
    tail: Annotated[
        float | None,
        Key("degrees of freedom of Student's t in place of the normal at the base; null is the normal", gt=2),
    ] = None

    def build(self, model: Program) -> Program:
        """A new autoguide; its layers are the identity at the start."""
        return _RealNVP(model, self.init_loc_fn(), self.start_scale, self.num_transforms, self.hidden_dim, self.tail)


class _RealNVP(autoguide.AutoMultivariateNormal):
    def __init__(
        self,
        model: Program,
        init_loc_fn: Callable[..., Any],
        init_scale: float,
        count: int,
        width: int | None,
        tail: float | None,
    ) -> None:
        super().__init__(model, init_loc_fn=init_loc_fn, init_scale=init_scale)
        self._count, self._width, self._tail = count, width, tail

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        size = self.latent_dim
        self.couplings = Couplings(size, self._count, self._width or max(32, 2 * size))

    def get_base_dist(self) -> Any:
        """Independent, of the latent vector's size."""
        zeros, ones = torch.zeros_like(self.loc), torch.ones_like(self.loc)
        if self._tail is None:
            return dist.Normal(zeros, ones).to_event(1)
        return dist.StudentT(self._tail * ones, zeros, ones).to_event(1)

    def get_posterior(self, *args: Any, **kwargs: Any) -> Any:
        """The flow."""
        scale: Any = self.scale
        scale_tril = scale[..., None] * self.scale_tril
        affine = LowerCholeskyAffine(self.loc, scale_tril=scale_tril)
        return dist.TransformedDistribution(self.get_base_dist(), [self.couplings, affine])


class Couplings(TransformModule):
    """Affine coupling layers, x and y of shape [..., D]; the first and second half move by turns, in random orders.

    Args:
        size: D.
        count: layers.
        width: of the networks' one hidden layer.

    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    masks: Tensor

    def __init__(self, size: int, count: int, width: int) -> None:
        super().__init__()
        rows = []
        # Orders of its own: fits under different seeds have the same layers, and can run as one program.
        orders = torch.Generator("cpu").manual_seed(0)
        for number in range(count):
            order = torch.arange(size) if number < 2 else torch.randperm(size, generator=orders, device="cpu")
            own = (order < (size + 1) // 2).to(torch.zeros(0))
            rows.append(own if number % 2 == 0 else 1.0 - own)
        self.register_buffer("masks", torch.stack(rows))
        # A step of an optimizer moves all weights at once: without this, a wide network goes as much farther by it.
        self.share = min(1.0, NARROW / width)
        self.entry = nn.ModuleList(nn.Linear(size, width) for _ in range(count))
        self.exit = nn.ModuleList(nn.Linear(width, 2 * size) for _ in range(count))
        for layer in self.exit:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _factors(self, place: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log factors and shifts of a layer, zero where it keeps x, from what it keeps: shape [..., D] each."""
        kept = self.masks[place]
        found = self.exit[place](torch.tanh(self.entry[place](x * kept)) * self.share)
        log_factor, shift = found.chunk(2, dim=-1)
        return (1.0 - kept) * LARGEST * torch.tanh(log_factor / LARGEST), (1.0 - kept) * shift

    def _call(self, x: Tensor) -> Tensor:
        for place in range(len(self.masks)):
            log_factor, shift = self._factors(place, x)
            x = x * log_factor.exp() + shift
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for place in reversed(range(len(self.masks))):
            log_factor, shift = self._factors(place, y)
            y = (y - shift) * (-log_factor).exp()
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Shape [...]."""
        del y
        total = x.new_zeros(x.shape[:-1])
        for place in range(len(self.masks)):
            log_factor, shift = self._factors(place, x)
            x = x * log_factor.exp() + shift
            total = total + log_factor.sum(-1)
        return total
