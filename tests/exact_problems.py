"""Problems so small that every objective, and its gradient, is known exactly.

Each is a model and a guide in ``lanes`` independent copies, each copy with parameters of its own: one call of an
estimator then yields as many independent estimates. And each is written a second time, without Pyro, as a table of
the guide's outcomes: their probabilities, and what they weigh. In the table, a normal variable has the nodes of a
Gauss-Hermite quadrature for outcomes.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import Bernoulli, Categorical, Normal

F64 = torch.float64
NODES = 14  # in each dimension: the exact gradients are within 0.03 % of those of 22
UNIT = 0.08  # of observations: in it, the ELBO is near 0, which leaves score-function gradients with little noise


@dataclass
class Outcomes:
    """All that a guide can draw."""

    probability: torch.Tensor
    log_weight: torch.Tensor
    """log p − log q of each."""
    draws: dict[str, torch.Tensor]
    """Values of discrete variables, and of normal ones the standard normal noise that they are made of."""


@dataclass(frozen=True)
class Bound:
    """The Rényi bound: E log (mean of w^(1 − alpha) over particles) / (1 − alpha).

    With alpha = 0 it is the importance-weighted one, and with one particle the ELBO.
    """

    particles: int = 1
    alpha: float = 0.0

    def __call__(self, outcomes: Outcomes) -> torch.Tensor:
        each = torch.arange(len(outcomes.probability))
        tuples = torch.cartesian_prod(*[each] * self.particles).reshape(-1, self.particles)
        powers = (1 - self.alpha) * outcomes.log_weight[tuples]
        bounds = (powers.logsumexp(-1) - np.log(self.particles)) / (1 - self.alpha)
        return (outcomes.probability[tuples].prod(-1) * bounds).sum()


ELBO = Bound()


class Problem(ABC):
    """A model and its guide, both in a plate of copies."""

    start: ClassVar[dict[str, Any]]
    """Each copy's parameters."""
    sites: ClassVar[tuple[str, ...]]
    """The latent variables that are discrete."""

    def __init__(self, lanes: int = 1, baseline: Callable[[str, torch.Tensor], dict[str, Any]] | None = None):
        """``baseline`` makes what the guide's discrete sites have as theirs, of a site's name and the draw before."""
        self.lanes, self.baseline = lanes, baseline

    def exact(self, bound: Bound = ELBO) -> tuple[float, dict[str, torch.Tensor]]:
        """The negative bound of one copy, and its gradient."""
        leaves = {name: torch.tensor(value, dtype=F64, requires_grad=True) for name, value in self.start.items()}
        loss = -bound(self.outcomes(leaves))
        loss.backward()
        return loss.item(), {name: leaf.grad for name, leaf in leaves.items()}

    def param(self, name: str) -> torch.Tensor:
        value = torch.tensor(self.start[name])
        return pyro.param(name, lambda: value.expand(self.lanes, *value.shape).clone())

    def infer(self, site: str, known: torch.Tensor | None = None) -> dict[str, Any]:
        known = torch.zeros(self.lanes) if known is None else known
        return {"baseline": self.baseline(site, known)} if self.baseline else {}

    def copies(self) -> pyro.plate:
        return pyro.plate("lanes", self.lanes)

    @abstractmethod
    def model(self) -> None: ...

    @abstractmethod
    def guide(self) -> None: ...

    @abstractmethod
    def outcomes(self, params: dict[str, torch.Tensor]) -> Outcomes: ...


class Conjugate(Problem):
    """Two normal variables, the second depending on the first in model and guide.

    ``prior`` is the model's own parameter, and ``offset`` one that model and guide share.
    """

    start: ClassVar = {
        "prior": 0.7,
        "offset": -1.6,
        "loc": 0.9,
        "log_scale": -0.4,
        "intercept": 1.3,
        "slope": 0.4,
        "log_scale_b": 0.0,
    }
    sites = ()
    DATA = (1.5, 2.7)

    def model(self):
        prior, offset = self.param("prior"), self.param("offset")
        with self.copies():
            a = pyro.sample("a", dist.Normal(prior, 1.5))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            for place, x in enumerate(self.DATA):
                pyro.sample(f"x{place}", dist.Normal(b + offset, 1.0), obs=torch.tensor(x))

    def guide(self):
        loc, scale, scale_b = self.param("loc"), self.param("log_scale").exp(), self.param("log_scale_b").exp()
        intercept, slope, offset = self.param("intercept"), self.param("slope"), self.param("offset")
        with self.copies():
            a = pyro.sample("a", dist.Normal(loc, scale))
            pyro.sample("b", dist.Normal(intercept + slope * a - offset, scale_b))

    def outcomes(self, params, nodes=NODES):
        weights, (noise_a, noise_b) = normal_nodes(2, nodes)
        q_a = Normal(params["loc"], params["log_scale"].exp())
        a = q_a.loc + q_a.scale * noise_a
        q_b = Normal(params["intercept"] + params["slope"] * a - params["offset"], params["log_scale_b"].exp())
        b = q_b.loc + q_b.scale * noise_b
        log_p = self.log_joint(params, a, b)
        return Outcomes(weights, log_p - q_a.log_prob(a) - q_b.log_prob(b), {"a": noise_a, "b": noise_b})

    def log_joint(self, params, a, b):
        log_p = Normal(params["prior"], 1.5).log_prob(a) + Normal(a, 1.0).log_prob(b)
        return log_p + sum(Normal(b + params["offset"], 1.0).log_prob(number(x)) for x in self.DATA)

    @staticmethod
    def closed_form(params):
        """-ELBO as a polynomial: the quadratures are held to it."""
        scale, scale_b = params["log_scale"].exp(), params["log_scale_b"].exp()
        mean_a, mean_b = params["loc"], params["intercept"] + params["slope"] * params["loc"] - params["offset"]
        variance_a, variance_b = scale**2, (params["slope"] * scale) ** 2 + scale_b**2
        squares = [
            ((mean_a - params["prior"]) ** 2 + variance_a) / 1.5**2,
            (mean_b - mean_a) ** 2 + ((params["slope"] - 1) * scale) ** 2 + scale_b**2,
            *((x - mean_b - params["offset"]) ** 2 + variance_b for x in Conjugate.DATA),
        ]
        constant = number(2 * np.pi).log()
        entropy = params["log_scale"] + params["log_scale_b"] + 1 + constant
        return 0.5 * (sum(squares) + len(squares) * constant) + number(1.5).log() - entropy


class Reversed(Conjugate):
    """The same model, with a guide that draws its variables in the other order."""

    def guide(self):
        loc, scale, scale_b = self.param("loc"), self.param("log_scale").exp(), self.param("log_scale_b").exp()
        intercept, slope, offset = self.param("intercept"), self.param("slope"), self.param("offset")
        with self.copies():
            b = pyro.sample("b", dist.Normal(loc - offset, scale_b))
            pyro.sample("a", dist.Normal(intercept + slope * b, scale))

    def outcomes(self, params, nodes=NODES):
        weights, (noise_a, noise_b) = normal_nodes(2, nodes)
        q_b = Normal(params["loc"] - params["offset"], params["log_scale_b"].exp())
        b = q_b.loc + q_b.scale * noise_b
        q_a = Normal(params["intercept"] + params["slope"] * b, params["log_scale"].exp())
        a = q_a.loc + q_a.scale * noise_a
        log_p = self.log_joint(params, a, b)
        return Outcomes(weights, log_p - q_a.log_prob(a) - q_b.log_prob(b), {"a": noise_a, "b": noise_b})


class Discrete(Problem):
    """Two Bernoulli variables and a categorical one: twelve outcomes."""

    start: ClassVar = {"prior": 1.3, "logit_a": -1.2, "logits_b": [1.7, 0.9], "logits_c": [-1.2, -0.9, 1.3]}
    sites = ("a", "b", "c")
    TABLE = ((0.2, 0.3, 0.5), (0.6, 0.3, 0.1))
    Y = 2.1

    def model(self):
        prior = self.param("prior")
        with self.copies():
            a = pyro.sample("a", dist.Bernoulli(logits=prior))
            b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
            c = pyro.sample("c", dist.Categorical(torch.tensor(self.TABLE)[b.long()]))
            mean = a + 2 * b + 0.7 * c
            pyro.sample("y", dist.Normal(UNIT * mean, UNIT), obs=torch.tensor(UNIT * self.Y))

    def guide(self):
        logit_a, logits_b, logits_c = self.param("logit_a"), self.param("logits_b"), self.param("logits_c")
        with self.copies():
            a = pyro.sample("a", dist.Bernoulli(logits=logit_a), infer=self.infer("a"))
            logit_b = a * logits_b[..., 1] + (1 - a) * logits_b[..., 0]
            b = pyro.sample("b", dist.Bernoulli(logits=logit_b), infer=self.infer("b", a))
            pyro.sample("c", dist.Categorical(logits=logits_c), infer=self.infer("c", b))

    def outcomes(self, params):
        all_three = itertools.product((0, 1), (0, 1), (0, 1, 2))
        a, b, c = (torch.tensor(values, dtype=F64) for values in zip(*all_three, strict=True))
        log_q = Bernoulli(logits=params["logit_a"]).log_prob(a)
        log_q = log_q + Bernoulli(logits=params["logits_b"][a.long()]).log_prob(b)
        log_q = log_q + Categorical(logits=params["logits_c"]).log_prob(c)
        log_p = Bernoulli(logits=params["prior"]).log_prob(a) + Bernoulli(0.2 + 0.5 * a).log_prob(b)
        log_p = log_p + Categorical(torch.tensor(self.TABLE, dtype=F64)[b.long()]).log_prob(c)
        log_p = log_p + Normal(UNIT * (a + 2 * b + 0.7 * c), UNIT).log_prob(number(UNIT * self.Y))
        return Outcomes(log_q.exp(), log_p - log_q, {"a": a, "b": b, "c": c})


class Summed(Discrete):
    """The same model, with a guide that leaves the last variable to be summed over."""

    start: ClassVar = {name: value for name, value in Discrete.start.items() if name != "logits_c"}
    sites = ("a", "b")

    def guide(self):
        logit_a, logits_b = self.param("logit_a"), self.param("logits_b")
        with self.copies():
            a = pyro.sample("a", dist.Bernoulli(logits=logit_a))
            pyro.sample("b", dist.Bernoulli(logits=a * logits_b[..., 1] + (1 - a) * logits_b[..., 0]))

    def outcomes(self, params):
        # With c uniform in the guide, the mean weight over its three values is the sum over c.
        full = super().outcomes({**params, "logits_c": torch.zeros(3, dtype=F64)})
        draws = {name: full.draws[name].reshape(4, 3)[:, 0] for name in self.sites}
        log_mean = full.log_weight.reshape(4, 3).logsumexp(-1) - np.log(3)
        return Outcomes(full.probability.reshape(4, 3).sum(-1), log_mean, draws)


class Mixed(Problem):
    """A normal variable, a Bernoulli one that depends on it, and a normal one that depends on that."""

    start: ClassVar = {
        "prior": -1.2,
        "loc": 1.3,
        "log_scale": -0.5,
        "bias": 0.8,
        "gain": -0.5,
        "shift": 0.1,
        "log_scale_w": 0.0,
    }
    sites = ("d",)
    Y = 2.4

    def model(self):
        prior = self.param("prior")
        with self.copies():
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            d = pyro.sample("d", dist.Bernoulli(logits=prior - z))
            w = pyro.sample("w", dist.Normal(d, 1.0))
            pyro.sample("y", dist.Normal(UNIT * (z + w), UNIT), obs=torch.tensor(UNIT * self.Y))

    def guide(self):
        loc, scale, scale_w = self.param("loc"), self.param("log_scale").exp(), self.param("log_scale_w").exp()
        bias, gain, shift = self.param("bias"), self.param("gain"), self.param("shift")
        with self.copies():
            z = pyro.sample("z", dist.Normal(loc, scale))
            d = pyro.sample("d", dist.Bernoulli(logits=bias + gain * z), infer=self.infer("d", z))
            pyro.sample("w", dist.Normal(shift * (1 - d) + d, scale_w))

    def outcomes(self, params, nodes=NODES):
        weights, (noise_z, noise_w) = normal_nodes(2, nodes)
        weights, noise_z, noise_w = weights.repeat(2), noise_z.repeat(2), noise_w.repeat(2)
        d = torch.arange(2, dtype=F64).repeat_interleave(nodes**2)
        q_z = Normal(params["loc"], params["log_scale"].exp())
        z = q_z.loc + q_z.scale * noise_z
        log_q_d = Bernoulli(logits=params["bias"] + params["gain"] * z).log_prob(d)
        q_w = Normal(params["shift"] * (1 - d) + d, params["log_scale_w"].exp())
        w = q_w.loc + q_w.scale * noise_w
        log_p = Normal(number(0.0), 1.0).log_prob(z) + Bernoulli(logits=params["prior"] - z).log_prob(d)
        log_p = log_p + Normal(d, 1.0).log_prob(w) + Normal(UNIT * (z + w), UNIT).log_prob(number(UNIT * self.Y))
        log_q = q_z.log_prob(z) + log_q_d + q_w.log_prob(w)
        return Outcomes(weights * log_q_d.exp(), log_p - log_q, {"z": noise_z, "d": d, "w": noise_w})


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def normal_nodes(dimensions: int, nodes: int) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Weights and noise of a quadrature for standard normal variables."""
    noise, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(nodes))
    grid = torch.cartesian_prod(*[noise] * dimensions).unbind(-1)
    return torch.cartesian_prod(*[weights / weights.sum()] * dimensions).prod(-1), grid
