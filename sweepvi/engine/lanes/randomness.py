"""Torch's random functions, with their numbers taken from elsewhere.

Every draw is made of standard normals and uniforms. What has no entry in the table below still draws from torch's own
generator; whoever captures a program must see to it that the generator has not moved.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sweepvi.engine.lanes import counts
from sweepvi.engine.lanes.gamma import TRIES, GammaOfNoise
from sweepvi.engine.lanes.noise import Draw, Kind
from sweepvi.private import sample_dirichlet, standard_gamma

Handler = Callable[..., Any]
_HANDLERS: dict[Any, Handler] = {}


class Randomness(TorchFunctionMode):
    """Inside, random functions take their numbers from :meth:`take`.

    Attributes:
        in_place: whether functions that write into a tensor do so; otherwise they return a new one, as the transforms
            of ``torch.func`` need it. A program that uses what it has written into notices the difference.

    """

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.in_place = in_place

    @abstractmethod
    def take(self, kind: Kind, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The numbers of the next draw."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace a random function; leave all others alone."""
        kwargs = {} if kwargs is None else kwargs
        handler = _HANDLERS.get(func)
        if handler is None:
            return func(*args, **kwargs)
        found = handler(self, *args, **kwargs)
        return args[0].copy_(found) if self.in_place and func.__name__.endswith("_") else found

    def normal(self, like: Tensor, shape: Any = None) -> Tensor:
        """Standard normals of a tensor's type; of its shape, or another."""
        return self.take("normal", tuple(like.shape if shape is None else shape), like.dtype, like.device)

    def uniform(self, like: Tensor, shape: Any = None) -> Tensor:
        """Uniforms over (0, 1) of a tensor's type; of its shape, or another."""
        return self.take("uniform", tuple(like.shape if shape is None else shape), like.dtype, like.device)


class Recorded(Randomness):
    """Draws from a generator of its own, and notes what was drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.draws: list[Draw] = []
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def take(self, kind: Kind, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Fresh numbers."""
        self.draws.append(Draw(kind, shape, dtype))
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        make = torch.randn if kind == "normal" else torch.rand
        with torch._C.DisableTorchFunction():
            return make(shape, dtype=dtype, device=device, generator=self._generators[device])


class Given(Randomness):
    """Takes draws from a list, in order; ``LookupError`` if the program draws something else than is next."""

    def __init__(self, draws: list[Tensor], in_place: bool = False) -> None:
        super().__init__(in_place)
        self._left: Iterator[Tensor] = iter(draws)

    def take(self, kind: Kind, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The next numbers of the list."""
        del device
        numbers = next(self._left, None)
        if numbers is None or tuple(numbers.shape) != shape or numbers.dtype != dtype:
            found = "nothing" if numbers is None else f"{tuple(numbers.shape)} of {numbers.dtype}"
            raise LookupError(f"a program draws {kind} {shape} of {dtype}, where {found} was drawn before")
        return numbers

    def demand_all_taken(self) -> None:
        """Raise ``LookupError`` if draws are left over."""
        if next(self._left, None) is not None:
            raise LookupError("a program draws less than before")


def _replaces(*functions: Any) -> Callable[[Handler], Handler]:
    def enter(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return enter


@_replaces(Tensor.normal_)
def _normal_in_place(mode: Randomness, x: Tensor, mean: Any = 0.0, std: Any = 1.0, *, generator: Any = None) -> Tensor:
    return mode.normal(x) * std + mean


@_replaces(Tensor.uniform_)
def _uniform_in_place(mode: Randomness, x: Tensor, low: Any = 0.0, high: Any = 1.0, *, generator: Any = None) -> Tensor:
    return mode.uniform(x) * (high - low) + low


@_replaces(Tensor.exponential_)
def _exponential_in_place(mode: Randomness, x: Tensor, lambd: Any = 1.0, *, generator: Any = None) -> Tensor:
    return -mode.uniform(x).log() / lambd


@_replaces(Tensor.cauchy_)
def _cauchy_in_place(mode: Randomness, x: Tensor, median: Any = 0.0, sigma: Any = 1.0, *, generator: Any = None) -> Any:
    return median + sigma * (math.pi * (mode.uniform(x) - 0.5)).tan()


@_replaces(Tensor.log_normal_)
def _log_normal_in_place(mode: Randomness, x: Tensor, mean: Any = 1.0, std: Any = 2.0, *, generator: Any = None) -> Any:
    return (mode.normal(x) * std + mean).exp()


@_replaces(Tensor.geometric_)
def _geometric_in_place(mode: Randomness, x: Tensor, p: Any, *, generator: Any = None) -> Tensor:
    return (mode.uniform(x).log() / torch.log1p(-torch.as_tensor(p, dtype=x.dtype, device=x.device))).ceil()


@_replaces(Tensor.bernoulli_)
def _bernoulli_in_place(mode: Randomness, x: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    return (mode.uniform(x) < p).to(x.dtype)


def _of_size(kind: Kind) -> Handler:
    def handler(mode: Randomness, *size: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        given: Any = options.get("size", size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
        like = torch.empty(0, dtype=dtype, device=device)
        return mode.take(kind, tuple(given), like.dtype, like.device)

    return handler


def _like(kind: Kind) -> Handler:
    def handler(mode: Randomness, x: Tensor, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        return mode.take(kind, tuple(x.shape), dtype or x.dtype, x.device if device is None else torch.device(device))

    return handler


_HANDLERS |= {
    torch.randn: _of_size("normal"),
    torch.rand: _of_size("uniform"),
    torch.randn_like: _like("normal"),
    torch.rand_like: _like("uniform"),
}


@_replaces(torch.normal)
def _normal(mode: Randomness, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    if size is not None:
        return mean + std * _HANDLERS[torch.randn](mode, size, **options)
    like = mean if isinstance(mean, Tensor) else std
    shapes = [x.shape for x in (mean, std) if isinstance(x, Tensor)]
    return mean + std * mode.normal(like, broadcast_shape(*shapes))


@_replaces(torch.bernoulli, Tensor.bernoulli)
def _bernoulli(mode: Randomness, x: Tensor, p: Any = None, **options: Any) -> Tensor:
    return (mode.uniform(x) < (x if p is None else p)).to(x.dtype)


@_replaces(torch.multinomial, Tensor.multinomial)
def _multinomial(
    mode: Randomness, weights: Tensor, num_samples: int, replacement: bool = False, **options: Any
) -> Tensor:
    """By inversion; without replacement by the largest of perturbed logs (Gumbel), in the order of drawing."""
    if not replacement and num_samples > 1:
        gumbel = -(-mode.uniform(weights).log()).log()
        return (gumbel + weights.log()).topk(num_samples, -1).indices
    ends = weights.cumsum(-1)
    points = mode.uniform(weights, (*weights.shape[:-1], num_samples)) * ends[..., -1:]
    return (points.unsqueeze(-1) >= ends.unsqueeze(-2)).sum(-1).clamp_max(weights.shape[-1] - 1)


@_replaces(torch.randperm)
def _permutation(mode: Randomness, n: int, **options: Any) -> Tensor:
    device = torch.empty(0, device=options.get("device")).device
    return mode.take("uniform", (n,), torch.float64, device).argsort()


@_replaces(torch.randint)
def _integers(mode: Randomness, low: int, high: Any = None, size: Any = None, **options: Any) -> Tensor:
    if not isinstance(high, int):  # torch.randint(high, size)
        low, high, size = 0, low, high if high is not None else size
    device = torch.empty(0, device=options.get("device")).device
    numbers = mode.take("uniform", tuple(size), torch.float64, device)
    return (low + numbers * (high - low)).floor().to(options.get("dtype") or torch.int64)


@_replaces(standard_gamma)
def _standard_gamma(mode: Randomness, concentration: Tensor, generator: Any = None) -> Tensor:
    tries = (*concentration.shape, TRIES)
    normal, uniform = mode.normal(concentration, tries), mode.uniform(concentration, tries)
    return GammaOfNoise.apply(concentration, normal, uniform, mode.uniform(concentration))


@_replaces(sample_dirichlet)
def _sample_dirichlet(mode: Randomness, concentration: Tensor, generator: Any = None) -> Tensor:
    gammas = _standard_gamma(mode, concentration)
    return gammas / gammas.sum(-1, keepdim=True)


@_replaces(torch.poisson)
def _poisson(mode: Randomness, rate: Tensor, generator: Any = None) -> Tensor:
    uniforms = mode.take("uniform", (*rate.shape, 2, counts.TRIES), torch.float64, rate.device)
    return counts.poisson(rate.detach().double(), uniforms).to(rate.dtype)


@_replaces(torch.binomial)
def _binomial(mode: Randomness, count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    uniforms = mode.take("uniform", (*count.shape, 2, counts.TRIES), torch.float64, count.device)
    return counts.binomial(count.detach().double(), prob.detach().double(), uniforms).to(count.dtype)


@_replaces(torch.nn.functional.gumbel_softmax)
def _gumbel_softmax(
    mode: Randomness, logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    del eps
    soft = ((logits - (-mode.uniform(logits).log()).log()) / tau).softmax(dim)
    if not hard:
        return soft
    chosen = torch.zeros_like(soft).scatter(dim, soft.argmax(dim, keepdim=True), 1.0)
    return chosen - soft.detach() + soft


@_replaces(torch.nn.functional.dropout, torch.dropout)
def _dropout(mode: Randomness, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return x * (mode.uniform(x) >= p).to(x.dtype) / (1 - p) if training and p > 0 else x


@_replaces(Tensor.clamp_)
def _clamp_in_place(mode: Randomness, x: Tensor, *bounds: Any, **named: Any) -> Tensor:
    """Not random; but torch's gamma distributions do it to their draws, and vmap has no fast rule for it."""
    del mode
    return x.copy_(x.clamp(*bounds, **named))


@_replaces(Tensor.new)
def _new(mode: Randomness, x: Tensor, *args: Any, **options: Any) -> Tensor:
    """Not random; but torch's multinomial distribution adds its draws to it, and vmap takes it for one of all lanes."""
    del mode
    sizes = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
    if all(isinstance(size, int) for size in sizes) and not options:
        return x.new_empty(tuple(sizes))
    return x.new(*args, **options)
