"""Update rules, each with an independent reference; gradients to compare them by. A new optimizer adds a row."""

from __future__ import annotations

import dataclasses
import functools
from contextlib import contextmanager
from typing import Any

import torch
from pyro.optim.adagrad_rmsprop import AdagradRMSProp
from pyro.optim.clipped_adam import ClippedAdam
from pyro.optim.dct_adam import DCTAdam

from sweepvi import registry

SHAPES = ((), (3,), (2, 4), (1,), (0,), (2, 3, 2))
F32, F64 = torch.float32, torch.float64


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    reference: Any
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    exact: bool = False
    """Whether results agree to the last bit."""
    f32: float = 1e-6
    """Relative difference in float32 otherwise."""
    f64: float = 1e-12
    lanes: float = 5e-6
    """Relative difference in float32 between a lane and a lone run."""
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    missing: tuple[str, ...] = ()
    """What the reference does not do, or does otherwise."""

    def __str__(self):
        return "-".join([self.name, *self.settings])

    def rule(self, **more):
        return registry.build("optimizer", {"name": self.name, "clip": {}, **self.defaults(), **self.settings, **more})

    def defaults(self):
        """The reference's own, where the rule has others."""
        specs = [spec.name for spec in registry.Row("optimizer", self.name, self.target()).specs()]
        probe = self.reference([torch.zeros(2, 2, requires_grad=True)]).defaults
        return {key: probe[key] for key in specs if key in probe}

    def target(self):
        return next(row.target for row in registry.rows("optimizer") if row.name == self.name)

    def theirs(self, params, **more):
        return self.reference(params, **{**self.settings, **more})

    def tolerance(self, dtype):
        return self.f32 if dtype == F32 else self.f64


def _torch(kind):
    return functools.partial(kind, foreach=False)


class ScheduleFreeAdam(torch.optim.Optimizer):
    """The three sequences of the paper's algorithm 1, one after the other."""

    def __init__(
        self,
        params,
        lr=0.02,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        warmup_steps=0,
        r=0.0,
        weight_lr_power=2.0,
    ):
        super().__init__(
            params, {key: value for key, value in locals().items() if key not in ("self", "params", "__class__")}
        )

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for y in (p for p in group["params"] if p.grad is not None):
                state = self.state[y]
                if not state:
                    state.update(t=0, W=0.0, x=y.clone(), z=y.clone(), v=torch.zeros_like(y))
                state["t"] += 1
                t, x, z, v = (state[key] for key in "txzv")
                gamma = group["lr"] * min(1.0, t / max(1, group["warmup_steps"]))
                v.copy_(beta2 * v + (1 - beta2) * y.grad**2)
                z -= gamma * (y.grad / ((v / (1 - beta2**t)).sqrt() + group["eps"]) + group["weight_decay"] * y)
                weight = t ** group["r"] * gamma ** group["weight_lr_power"]
                state["W"] += weight
                x.lerp_(z, weight / state["W"])
                y.copy_((1 - beta1) * z + beta1 * x)


class ScheduleFreeProdigy(torch.optim.Optimizer):
    """Prodigy's estimate of the step size with x, y and z of schedule-free averaging, all kept."""

    def __init__(self, params, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, d0=1e-6, d_coef=0.3):
        super().__init__(
            params, {key: value for key, value in locals().items() if key not in ("self", "params", "__class__")}
        )

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            if all(y.grad is None for y in group["params"]):
                continue
            d = group.setdefault("d", group["d0"])
            size, beta3 = group["lr"] * d, beta2**0.5
            group["t"] = group.get("t", 0) + 1
            group["n"], group["W"] = beta3 * group.get("n", 0.0), group.get("W", 0.0) + size**2
            grads = {y: torch.zeros_like(y) if y.grad is None else y.grad for y in group["params"]}
            for y, g in grads.items():
                state = self.state[y]
                if not state:
                    state.update(
                        start=y.clone(), x=y.clone(), z=y.clone(), v=torch.zeros_like(y), s=torch.zeros_like(y)
                    )
                group["n"] += float(size * d / group["d0"] * (g * (state["start"] - y)).sum())
                state["s"].mul_(beta3).add_(size * d / group["d0"] * g)
                state["v"].mul_(beta2).add_((1 - beta2) * (d * g) ** 2)
            norm = sum(float(self.state[y]["s"].abs().sum()) for y in grads)
            group["d"] = max(d, group["d_coef"] * group["n"] / norm if norm > 0 else 0.0)
            for y, g in grads.items():
                x, z, v = (self.state[y][key] for key in "xzv")
                root = (v / (1 - beta2 ** group["t"])).sqrt() + group["d"] * group["eps"]
                z -= size * (d * g / root + group["weight_decay"] * y)
                x.lerp_(z, size**2 / group["W"])
                y.copy_((1 - beta1) * z + beta1 * x)


MUON = {"f32": 1e-4, "f64": 1e-4, "lanes": 0.1, "shapes": ((2, 4), (4, 2)), "missing": ("complex",)}
"""Where a product lies between two bfloat16 numbers, the last bit decides; the iteration makes much of it."""
SOLID = tuple(shape for shape in SHAPES if shape != (0,))
"""Without the empty one, at which torch's Adafactor divides by zero."""
REAL = ("complex",)
OWN = ("complex", "scheduled", "state", "back")

REFERENCES = [
    Row("clipped_adam", ClippedAdam, {"lr": 0.01}, exact=True, missing=REAL),
    Row(
        "clipped_adam",
        ClippedAdam,
        {"lr": 0.1, "clip_norm": 0.5, "lrd": 0.99, "weight_decay": 0.1, "betas": (0.8, 0.9)},
        missing=("complex", "back"),  # Pyro has the decay so far in its group's lr.
    ),
    Row("clipped_adam", ClippedAdam, {"lr": 0.01, "centered_variance": True, "eps": 0.01}, exact=True, missing=REAL),
    Row("adagrad_rmsprop", AdagradRMSProp, exact=True, missing=("complex", "added")),
    Row("adagrad_rmsprop", AdagradRMSProp, {"eta": 0.1, "delta": 0.2, "t": 0.5}, exact=True, missing=REAL),
    Row("dct_adam", DCTAdam, {"lr": 0.1, "clip_norm": 0.5, "betas": (0.8, 0.9)}, missing=REAL),
    Row("adam", _torch(torch.optim.Adam), {"lr": 0.01}, exact=True),
    Row(
        "adam",
        _torch(torch.optim.Adam),
        {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.9), "eps": 0.01},
        exact=True,
    ),
    # torch rounds 1 - lr * weight_decay to float32, which the steps add up; ours keeps the small number.
    Row("adam", _torch(torch.optim.Adam), {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True}, f32=2e-5),
    Row("adamw", _torch(torch.optim.AdamW), {"lr": 0.01}, f32=2e-5),
    Row("adamw", _torch(torch.optim.AdamW), {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}, f32=2e-5),
    Row("sgd", _torch(torch.optim.SGD), {"lr": 0.01}),
    Row("sgd", _torch(torch.optim.SGD), {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    Row("sgd", _torch(torch.optim.SGD), {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    Row("sgd", _torch(torch.optim.SGD), {"lr": 0.01, "dampening": 0.3}),
    Row("rmsprop", _torch(torch.optim.RMSprop), {"lr": 0.01}, exact=True),
    Row(
        "rmsprop",
        _torch(torch.optim.RMSprop),
        {"lr": 0.01, "centered": True, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9},
        f32=1e-5,
    ),
    Row("adagrad", _torch(torch.optim.Adagrad), exact=True),
    Row(
        "adagrad",
        _torch(torch.optim.Adagrad),
        {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 0.01},
        exact=True,
    ),
    Row("adadelta", _torch(torch.optim.Adadelta), exact=True),
    Row("adadelta", _torch(torch.optim.Adadelta), {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    Row("adamax", _torch(torch.optim.Adamax), exact=True),
    Row(
        "adamax",
        _torch(torch.optim.Adamax),
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.1},
        exact=True,
    ),
    # torch keeps the product of momenta as one number, with which it reckons in float64; "back" would be a tensor.
    Row("nadam", _torch(torch.optim.NAdam), f32=5e-6, missing=("back",)),
    Row(
        "nadam",
        _torch(torch.optim.NAdam),
        {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1},
        f32=5e-6,
        missing=("back",),
    ),
    Row(
        "nadam",
        _torch(torch.optim.NAdam),
        {"momentum_decay": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True},
        f32=2e-5,
        missing=("back",),
    ),
    Row("radam", _torch(torch.optim.RAdam), exact=True),
    Row("radam", _torch(torch.optim.RAdam), {"lr": 0.1, "betas": (0.8, 0.6), "weight_decay": 0.1}, exact=True),
    Row(
        "radam",
        _torch(torch.optim.RAdam),
        {"betas": (0.8, 0.9), "weight_decay": 0.3, "decoupled_weight_decay": True},
        f32=2e-5,
    ),
    # A scheduled step size reaches torch's ASGD one step late, and its state has numbers that ours computes.
    Row("asgd", _torch(torch.optim.ASGD), f32=1e-5, missing=("scheduled", "back")),
    Row(
        "asgd",
        _torch(torch.optim.ASGD),
        {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 50.0, "weight_decay": 0.1},
        f32=1e-5,
        missing=("scheduled", "back"),
    ),
    Row("rprop", _torch(torch.optim.Rprop), exact=True),
    Row("rprop", _torch(torch.optim.Rprop), {"lr": 0.1, "etas": (0.7, 1.5), "step_sizes": (0.05, 2.0)}, exact=True),
    Row("adafactor", torch.optim.Adafactor, shapes=SOLID, missing=REAL),
    Row(
        "adafactor",
        torch.optim.Adafactor,
        {"lr": 0.1, "beta2_decay": -0.5, "eps": (1e-4, 0.1), "d": 2.0, "weight_decay": 0.1},
        f32=2e-5,
        shapes=SOLID,
        missing=REAL,
    ),
    Row("muon", torch.optim.Muon, **MUON),
    Row("muon", torch.optim.Muon, {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}, **MUON),
    Row("schedule_free_adam", ScheduleFreeAdam, f32=1e-5, missing=OWN),
    Row(
        "schedule_free_adam",
        ScheduleFreeAdam,
        {"lr": 0.1, "weight_decay": 0.1, "warmup_steps": 9, "r": 1.0, "betas": (0.8, 0.9)},
        f32=1e-5,
        missing=OWN,
    ),
    Row("schedule_free_prodigy", ScheduleFreeProdigy, f32=1e-4, missing=OWN),
    Row(
        "schedule_free_prodigy",
        ScheduleFreeProdigy,
        {"lr": 0.3, "betas": (0.5, 0.9), "weight_decay": 0.1, "d_coef": 1.0},
        f32=1e-4,
        missing=OWN,
    ),
]
FIRST = list({row.name: row for row in reversed(REFERENCES)}.values())[::-1]
"""One row of each optimizer."""


def rows_with(what, rows=REFERENCES):
    return [row for row in rows if what not in row.missing]


def parameters(dtype, shapes=SHAPES):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=F64).to(dtype).requires_grad_() for shape in shapes]


@functools.cache
def stream(dtype, steps, shapes=SHAPES, missing=False):
    """Gradients of sizes from 1e-8 to 1e8; with ``missing``, some parameters have none in some steps."""
    generator = torch.Generator().manual_seed(0)
    gradients = []
    for step in range(steps):
        sizes = [10.0 ** (16 * torch.rand((), generator=generator, dtype=F64) - 8) for _ in shapes]
        each = [
            size * torch.randn(shape, generator=generator, dtype=F64) for size, shape in zip(sizes, shapes, strict=True)
        ]
        absent = [missing and (step + place) % 5 == 2 for place in range(len(shapes))]
        gradients.append([None if gone else g.to(dtype) for g, gone in zip(each, absent, strict=True)])
    return gradients


def run(optimizer, params, gradients, after=lambda: None):
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            # A copy: Pyro's classes clip the caller's.
            param.grad = None if gradient is None else gradient.clone()
        optimizer.step()
        after()
    return params


@contextmanager
def numbers_as(dtype):
    """torch's optimizers keep their own numbers in the default type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def close(ours, theirs, tolerance, scales=None):
    """Whether tensors agree, relative to the largest element of each, or of ``scales``."""
    for mine, other, scale in zip(ours, theirs, scales or theirs, strict=True):
        assert mine.dtype == other.dtype
        assert mine.shape == other.shape
        assert mine.isfinite().all()
        if mine.numel():
            difference = float((mine - other).abs().max().detach() / scale.detach().abs().max())
            assert difference <= tolerance, difference
