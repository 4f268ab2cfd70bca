"""The problems, as sweepvi and Pyro run them; NumPyro gets their arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from sweepvi.models.digits_vae import DigitsVAE
from sweepvi.models.eight_schools import EightSchools
from sweepvi.models.radon import Radon
from sweepvi.problem import Model
from sweepvi.problem import Problem as PyroProblem

BATCH = 128
"""Images in a minibatch of the digits."""
STATES = 3
"""Hidden states of the time series."""
INIT_SCALE = 0.1
"""Where the scales of every AutoNormal start; its means start at the prior's medians."""


@dataclass(frozen=True)
class Problem:
    """A model with its data."""

    model: Any
    """As ``sweepvi.fit`` takes it."""
    pyro: PyroProblem
    """As Pyro runs it, in float64."""
    own_guide: bool = False
    """Whether the model brings its guide; otherwise AutoNormal."""
    vectorizes: bool = False
    """Whether it runs under vectorized particles, which makes Pyro's scoring fast."""

    @property
    def arrays(self) -> dict[str, Any]:
        """The data by name, as nested lists."""
        return {name: value.tolist() for name, value in self.pyro.kwargs.items() if isinstance(value, Tensor)}

    @property
    def sweepvi(self) -> dict[str, Any]:
        """Model, data and guide as keyword arguments of ``sweepvi.fit``."""
        shipped = isinstance(self.model, dict)
        guide = {"name": "own"} if self.own_guide else {"name": "auto_normal", "init_scale": INIT_SCALE}
        return {"model": self.model, "kwargs": None if shipped else dict(self.pyro.kwargs), "guide": guide}


def problem(name: str) -> Problem:
    """A problem by its name; ``normal_means:D`` is one of D latent scalars."""
    if name.startswith("normal_means:"):
        return _made(normal_means, y=2.0 * _generator().normal(size=int(name.partition(":")[2])))
    return PROBLEMS[name]()


def regression(x: Tensor, y: Tensor) -> None:
    """Linear regression: ``x`` of shape [rows, predictors], ``y`` of shape [rows]."""
    weights = pyro.sample("weights", dist.Normal(x.new_zeros(x.shape[1]), 10.0).to_event(1))
    intercept = pyro.sample("intercept", dist.Normal(0.0, 10.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(5.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ weights + intercept, sigma), obs=y)


def time_series(y: Tensor) -> None:
    """A series of shape [time] around levels between which a hidden Markov chain switches."""
    transition = pyro.sample("transition", dist.Dirichlet(y.new_ones(STATES, STATES)).to_event(1))
    level = pyro.sample("level", dist.Normal(y.new_zeros(STATES), 5.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    observed = dist.Normal(level.unsqueeze(-2), sigma)
    chain = dist.DiscreteHMM(y.new_zeros(STATES), transition.log(), observed, duration=len(y))
    pyro.sample("y", chain, obs=y)


def normal_means(y: Tensor) -> None:
    """A latent mean for each entry of ``y``, of shape [D]: next to no arithmetic, so that what it costs is lanes."""
    with pyro.plate("entries", len(y)):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def _regression() -> Problem:
    generator = _generator()
    x = generator.normal(size=(5000, 25))
    return _made(regression, x=x, y=x @ generator.normal(size=25) + generator.normal(size=5000))


def _time_series() -> Problem:
    generator = _generator()
    states = np.cumsum(generator.random(200) < 0.05) % STATES
    return _made(time_series, y=3.0 * (states - 1) + 0.7 * generator.normal(size=200))


def _generator() -> np.random.Generator:
    return np.random.default_rng(0)


def _made(model: Any, **arrays: np.ndarray) -> Problem:
    return Problem(model, PyroProblem(model, kwargs={name: torch.from_numpy(array) for name, array in arrays.items()}))


def _shipped(name: str, model: Model, own_guide: bool = False, vectorizes: bool = False, **keys: Any) -> Problem:
    return Problem({"name": name, **keys}, model.problem(_no_loading), own_guide, vectorizes)


def _no_loading(*arguments: Any) -> Any:
    raise AssertionError(f"a shipped model loads nothing: {arguments}")


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "eight_schools": lambda: _shipped("eight_schools", EightSchools(), vectorizes=True),
    "radon": lambda: _shipped("radon", Radon()),
    "regression": _regression,
    "time_series": _time_series,
    "digits_vae": lambda: _shipped("digits_vae", DigitsVAE(batch_size=BATCH), own_guide=True, batch_size=BATCH),
}
