"""DCTAdam: ClippedAdam in the time and the frequency domain at once, for parameters of time series.

Pyro's optimizer of that name (``pyro.optim.dct_adam``, 1.9.2). A parameter with a time dimension of length T has two
sets of averages, one of its gradient and one of the gradient's orthonormal cosine transform (DCT-II), padded with zeros
to length N ≥ T, the next number whose prime factors are 2, 3 and 5. With gradient g, step t and c = ``clip_norm``::

    g ← clamp(g, −c, c)
    m ← β₁ m + (1 − β₁) g           v ← β₂ v + (1 − β₂) g²
    M ← β₁ M + (1 − β₁) DCT(g)      V ← β₂ V + (1 − β₂) DCT(g)²
    p ← p − lr · lrdᵗ · √(1 − β₂ᵗ) / (1 − β₁ᵗ) · [ m / (√v + eps) + IDCT( w · M / (√V + eps) ) ]

Beside noise, the gradient of a slow component of a series is small at every time, but not at its frequency, where it
adds up: there, it learns as fast as a quick one. Frequency k = 0 … N − 1 is the cosine of k half waves over N steps.
Its weight ``w_k = (1 + k / frequency_scale) ^ −frequency_power`` is 1 in Pyro's; with a power above 0, quick components
learn more slowly in the frequency domain. For parameters without a time dimension the equations are without M and V:
ClippedAdam.

The time dimension is that in ``time_dims``, by the parameter's name, or else that in its attribute ``_pyro_dct_dim``,
which Pyro's forecasting tools set.

With ``subsample_aware``, elements outside the minibatch keep their values and averages, and t is each element's own
count of updates. The minibatch is in the parameter's attribute ``_pyro_subsample``, which Pyro's plates set. In the
frequency domain, where every time has a part in every frequency, the same goes for whole series: one is updated if any
element of it is in the minibatch. So where the plate is the time dimension itself, frequencies learn in every step, by
the gradient as it is, zero outside the minibatch, and move all of the series; its times learn only when they are seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

import torch
from pyro.ops.tensor_utils import next_fast_len
from torch import Tensor
from torch.nn.functional import pad

from sweepvi.errors import ConfigError, Problem, listed, unknown
from sweepvi.keys import Key
from sweepvi.optim.advance import BLOCK
from sweepvi.optim.arithmetic import average, average_square, clamped, like, power, shifted, times
from sweepvi.optim.cosine_transform import cosine_transform, inverse_cosine_transform
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.torch_face import RuleOptimizer


@dataclass(frozen=True)
class DCTAdamRule(Rule):
    """Pyro's DCTAdam: ClippedAdam in the time and the frequency domain at once, for time series."""

    slots: ClassVar = ("exp_avg", "exp_avg_sq")

    lr: Annotated[float, Key("step size at the start", gt=0)] = 0.02
    betas: Annotated[tuple[float, float], Key("decay of gradient and squared-gradient averages", ge=0, lt=1)] = (
        0.9,
        0.999,
    )
    eps: Annotated[float, Key("added to the root of the squared-gradient average", ge=0)] = 1e-8
    clip_norm: Annotated[
        float, Key("bound on each element of the gradient (a clamp, not a norm)", gt=0, infinite=True)
    ] = 10.0
    lrd: Annotated[float, Key("factor on the step size, once a step", gt=0)] = 1.0
    subsample_aware: Annotated[bool, Key("update only the elements that are in the minibatch")] = False
    time_dims: Annotated[
        Mapping[str, int], Key("time dimension of parameters, by name or pattern, from the last: -1", lt=0)
    ] = field(default_factory=dict)
    frequency_scale: Annotated[float, Key("half waves a series from which frequency_power bites", gt=0)] = 1.0
    frequency_power: Annotated[float, Key("fall of the step size with the frequency, a power; 0 is none")] = 0.0

    def for_parameter(self, name: str, param: Tensor) -> Rule:
        """A rule of its own for a parameter with a time dimension, or of which there are minibatches."""
        dim, minibatch = self._time_dim(name, param), bool(self.inputs(param))
        if dim is not None:
            return _SeriesRule(dim, self.subsample_aware, minibatch)
        if minibatch:
            return _MinibatchRule(**{key.name: getattr(self, key.name) for key in fields(self)})
        return self

    def misfits(self, shapes: Mapping[str, torch.Size]) -> dict[str, str]:
        """Patterns that no parameter's name fits, and dimensions that a parameter does not have."""
        problems = {}
        for pattern, dim in self.time_dims.items():
            short = [name for name, shape in shapes.items() if self._pattern(name) == pattern and len(shape) < -dim]
            if short:
                have = listed(f"{name} of shape {tuple(shapes[name])}" for name in short)
                problems[f"time_dims.{pattern}"] = f"is {dim}, a dimension that some parameters do not have: {have}"
            elif not any(fnmatchcase(name, pattern) for name in shapes):
                problems[f"time_dims.{pattern}"] = unknown("parameter", pattern, shapes)
        return problems

    def _time_dim(self, name: str, param: Tensor) -> int | None:
        pattern = self._pattern(name)
        dim = getattr(param, "_pyro_dct_dim", None) if pattern is None else self.time_dims[pattern]
        if dim is None:
            return None
        if not -param.dim() <= dim < 0 or param.is_complex():
            key = "_pyro_dct_dim" if pattern is None else f"time_dims.{pattern}"
            kind = "a complex parameter" if param.is_complex() else "a parameter"
            message = f"{name or 'a parameter without a name'} is {kind} of shape {tuple(param.shape)}"
            raise ConfigError([Problem.of(key, dim, f"{message}, which has no such time dimension")])
        return dim if param.numel() else None

    def _pattern(self, name: str) -> str | None:
        return next((pattern for pattern in self.time_dims if fnmatchcase(name, pattern)), None)

    def slot_names(self) -> tuple[str, ...]:
        """With ``subsample_aware``, each element counts its updates."""
        return (*self.slots, "updates") if self.subsample_aware else self.slots

    def decay(self, hyper: Hyper, clock: Step) -> Any:
        """``lrd`` to the power of the step."""
        return power(hyper["lrd"], clock)

    def reads_param(self, hyper: Hyper) -> bool:
        """No."""
        del hyper
        return False

    def inputs(self, param: Tensor) -> Slots:
        """Of a parameter with a minibatch, ``seen``: the elements in it."""
        return _seen(param) if self.subsample_aware else {}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """The step size with both corrections for bias."""
        return _scalars(hyper, step)

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        del param
        grad = clamped(grad, hyper["clip_norm"])
        if self.subsample_aware:
            delta, new = _counted(grad, slots, hyper.get("seen"), hyper)
            return -delta, new
        new, root = _averages(grad, slots, hyper)
        return times(new["exp_avg"], -hyper["size"]) / root, new


class _MinibatchRule(DCTAdamRule):
    """The same for parameters of which there are minibatches: with others, they would share a batch, and their mask."""


@dataclass(frozen=True)
class _SeriesRule(Rule):
    """DCTAdam of a parameter with a time dimension.

    Slots of the frequency domain have that dimension last.
    """

    scope: ClassVar[Literal["parameter"]] = "parameter"

    dim: int
    """The time dimension, from the last."""
    subsample_aware: bool
    minibatch: bool

    def trailing(self) -> int:
        """The time dimension and those after it."""
        return -self.dim

    def init(self, param: Tensor, hyper: Hyper) -> Slots:
        """Zeros, for both domains."""
        del hyper
        lead, length = param.movedim(self.dim, -1).shape[:-1], param.shape[self.dim]
        in_time = {name: torch.zeros_like(param, requires_grad=False) for name in self._names()}
        in_frequency = {
            _FREQUENCY + name: torch.zeros(
                (*lead, 1 if name == "updates" else next_fast_len(length)), dtype=param.dtype, device=param.device
            )
            for name in self._names()
        }
        return in_time | in_frequency

    def _names(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "updates") if self.subsample_aware else ("exp_avg", "exp_avg_sq")

    def reads_param(self, hyper: Hyper) -> bool:
        """No."""
        del hyper
        return False

    def inputs(self, param: Tensor) -> Slots:
        """See :meth:`DCTAdamRule.inputs`."""
        return _seen(param) if self.subsample_aware else {}

    def scalars(self, hyper: Hyper, step: Step) -> dict[str, Any]:
        """See :meth:`DCTAdamRule.scalars`."""
        return _scalars(hyper, step)

    def update(self, grad: Tensor, param: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        """See :meth:`Rule.update` and the equations above."""
        del param
        block = BLOCK * torch.get_num_threads()
        if grad.dim() == 1 or grad.numel() <= block or grad.device.type != "cpu" or torch.compiler.is_compiling():
            return self._update(grad, slots, hyper)
        # Series by series it is the same, and what is computed of a few of them stays in cache.
        delta, new = torch.empty_like(grad), {name: torch.empty_like(slot) for name, slot in slots.items()}
        count = -(-grad.numel() // block)
        read = self._blocks({"grad": grad, **slots, **{key: hyper[key] for key in hyper if key == "seen"}}, count)
        for there, into in zip(read, self._blocks({"delta": delta, **new}, count), strict=True):
            change, kept = self._update(there["grad"], there, {**hyper, **there})
            for name, x in {"delta": change, **kept}.items():
                into[name].copy_(x)
        return delta, new

    def _blocks(self, tensors: Slots, count: int) -> list[Slots]:
        """Views of about as many parts, cut along the first dimension that is not time."""
        cut = {}
        for name, x in tensors.items():
            along = 1 if x.dim() + self.dim == 0 and not name.startswith(_FREQUENCY) else 0
            cut[name] = x.split(-(-x.shape[along] // count), along)
        return [dict(zip(cut, parts, strict=True)) for parts in zip(*cut.values(), strict=True)]

    def _update(self, grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Tensor, Slots]:
        grad = clamped(grad, hyper["clip_norm"])
        spectrum = self._transformed(grad)
        in_time = {name: slots[name] for name in self._names()}
        in_frequency = {name: slots[_FREQUENCY + name] for name in self._names()}
        if self.subsample_aware:
            seen = hyper.get("seen")
            series = None if seen is None else seen.movedim(self.dim, -1).any(-1, keepdim=True)
            delta, in_time = _counted(grad, in_time, seen, hyper)
            wave, in_frequency = _counted(spectrum, in_frequency, series, hyper)
            delta = -(self._restored(_weighted(wave, hyper), grad) + delta)
        else:
            in_time, root = _averages(grad, in_time, hyper)
            in_frequency, wave_root = _averages(spectrum, in_frequency, hyper)
            wave = self._restored(_weighted(in_frequency["exp_avg"] / wave_root, hyper), grad)
            delta = times(wave + in_time["exp_avg"] / root, -hyper["size"])
        return delta, in_time | {_FREQUENCY + name: slot for name, slot in in_frequency.items()}

    def _transformed(self, grad: Tensor) -> Tensor:
        grad = grad.movedim(self.dim, -1)
        padding = next_fast_len(grad.shape[-1]) - grad.shape[-1]
        return cosine_transform(pad(grad, (0, padding)) if padding else grad)

    def _restored(self, wave: Tensor, grad: Tensor) -> Tensor:
        return inverse_cosine_transform(wave)[..., : grad.shape[self.dim]].movedim(-1, self.dim)


_FREQUENCY = "freq_"
"""What names of slots of the frequency domain begin with."""


def _scalars(hyper: Hyper, step: Step) -> dict[str, Any]:
    beta1, beta2 = hyper["betas"]
    return {"size": hyper["lr"] * (1 - power(beta2, step)) ** 0.5 / (1 - power(beta1, step))}


def _seen(param: Tensor) -> Slots:
    """The elements in the minibatch, under ``seen``; nothing if there is no minibatch."""
    indices = {dim: index for dim, index in getattr(param, "_pyro_subsample", {}).items() if -param.dim() <= dim < 0}
    if not indices:
        return {}
    seen = torch.ones((), dtype=torch.bool, device=param.device)
    for dim, index in indices.items():
        along = torch.zeros(param.shape[dim], dtype=torch.bool, device=param.device)
        along[index] = True
        seen = seen & along.reshape(-1, *(1,) * (-1 - dim))
    return {"seen": seen.expand(param.shape)}


def _averages(grad: Tensor, slots: Slots, hyper: Hyper) -> tuple[Slots, Tensor]:
    """The averages after a gradient, and ``√v + eps``."""
    beta1, beta2 = hyper["betas"]
    exp_avg = average(slots["exp_avg"], grad, beta1)
    exp_avg_sq = average_square(slots["exp_avg_sq"], grad, beta2)
    return {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}, shifted(exp_avg_sq.sqrt(), hyper["eps"])


def _counted(grad: Tensor, slots: Slots, seen: Tensor | None, hyper: Hyper) -> tuple[Tensor, Slots]:
    """What to subtract where each element has its own count of updates, and the new slots; None sees them all."""
    beta1, beta2 = hyper["betas"]
    new, root = _averages(grad, slots, hyper)
    new["updates"] = updates = slots["updates"] + 1
    # In the parameter's type where there is a minibatch, as in Pyro; where not, Pyro has one count for all, a number.
    count = updates.double() if seen is None else updates
    size = times((1 - like(beta2, count) ** count).sqrt() / (1 - like(beta1, count) ** count), hyper["lr"])
    delta = new["exp_avg"] / root * size.to(grad.dtype)
    if seen is None:
        return delta, new
    return torch.where(seen, delta, 0.0), {name: torch.where(seen, slot, slots[name]) for name, slot in new.items()}


def _weighted(wave: Tensor, hyper: Hyper) -> Tensor:
    """A step in the frequency domain, each frequency with its weight."""
    power = hyper["frequency_power"]
    if not isinstance(power, Tensor) and power == 0:
        return wave
    k = torch.arange(wave.shape[-1], dtype=torch.float64, device=wave.device)
    return times(wave, (1 + k / hyper["frequency_scale"]) ** -power)


class DCTAdam(RuleOptimizer, rule=DCTAdamRule, lr=1e-3):
    """:class:`DCTAdamRule` as a ``torch.optim.Optimizer``."""
