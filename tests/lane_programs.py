"""Small programs, each with a feature of Pyro's that lanes have to pass through; and some that cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiscreteParallel,
    AutoGaussian,
    AutoGuideList,
    AutoHierarchicalNormalMessenger,
    AutoLaplaceApproximation,
    AutoNormal,
    AutoNormalMessenger,
    AutoRegressiveMessenger,
    AutoStructured,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

Y = torch.tensor([0.3, -1.2, 0.7, 2.0, 0.1, -0.4])


def line(y):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    level = pyro.sample("level", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(slope + level.sum(-1, keepdim=True), scale.unsqueeze(-1)), obs=y)


def mean(y):
    x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x.sum(-1), 1.0), obs=y)


def constrained(y):
    scale = pyro.param("scale", torch.tensor(0.7), constraint=constraints.positive)
    weights = pyro.param("weights", torch.tensor([0.2, 0.3, 0.5]), constraint=constraints.simplex)
    tril = pyro.param("tril", torch.eye(2), constraint=constraints.lower_cholesky)
    share = pyro.param("share", torch.tensor(0.4), constraint=constraints.unit_interval)
    ends = pyro.param("ends", torch.tensor([-0.5, 0.5]), constraint=constraints.ordered_vector)
    pyro.sample("x", dist.MultivariateNormal(ends + share * weights[:2], scale_tril=scale * tril))


class Regression(PyroModule):
    """A network's weights as variables, a scale as a parameter."""

    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](1, 1)
        self.layer.weight = PyroSample(lambda own: dist.Normal(torch.zeros(1, 1), 1.0).to_event(2))
        self.scale = PyroParam(torch.tensor(0.9), constraints.positive)

    def forward(self, y):
        center = self.layer(torch.linspace(-1, 1, len(y)).to(y.dtype).unsqueeze(-1)).squeeze(-1)
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(center, self.scale), obs=y)


class Plain(PyroModule):
    """A network whose parameters are Pyro's through nothing but being a PyroModule's."""

    def __init__(self):
        super().__init__()
        self.layer = PyroModule[nn.Linear](1, 1)

    def forward(self, y):
        center = self.layer(torch.linspace(-1, 1, len(y)).unsqueeze(-1).to(self.layer.weight.dtype)).squeeze(-1)
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(center + z, 1.0), obs=y)


def prior_guide(y):
    pyro.sample("z", dist.Normal(0.5, 1.0))


class Coded:
    """An encoder and a decoder: registered with Pyro, and in no attribute that Pyro knows."""

    def __init__(self):
        torch.manual_seed(0)
        self.decoder, self.encoder = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)), nn.Linear(1, 2)

    def __call__(self, y):
        decoder = pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(decoder(z).squeeze(-1), 1.0), obs=y)

    def guide(self, y):
        encoder = pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(y)):
            loc, log_scale = encoder(y.unsqueeze(-1)).split(1, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


CODED = Coded()


class Normalised(Coded):
    """Its encoder keeps a running mean."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))


def crossed(y):
    """Minibatches of two plates, one in the other."""
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    rows, columns = pyro.plate("rows", 6, 3, dim=-2), pyro.plate("columns", 4, 2, dim=-1)
    with rows as row:
        effect = pyro.sample("effect", dist.Normal(loc, 1.0))
        with columns as column:
            pyro.sample("y", dist.Normal(effect, 1.0), obs=y[row][:, None] + column)


def crossed_guide(y):
    loc = pyro.param("loc_q", torch.tensor(0.1))
    effects = pyro.param("effects", torch.zeros(6, 1))
    pyro.sample("loc", dist.Normal(loc, 0.3))
    pyro.plate("columns", 4, 2, dim=-1)
    with pyro.plate("rows", 6, 3, dim=-2) as row:
        pyro.sample("effect", dist.Normal(effects[row], 0.5))


def positive(y):
    a = pyro.sample("a", dist.Gamma(2.0, 2.0))
    b = pyro.sample("b", dist.Beta(2.0, 3.0))
    c = pyro.sample("c", dist.Dirichlet(torch.ones(3)))
    t = pyro.sample("t", dist.StudentT(5.0, 0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(t + a * b, c[0] + 0.5), obs=y)


def positive_guide(y):
    shape = pyro.param("shape", torch.tensor([2.0, 1.5, 0.8]), constraint=constraints.positive)
    pyro.sample("a", dist.Gamma(shape[0], 1.5))
    pyro.sample("b", dist.Beta(shape[1], shape[0]))
    pyro.sample("c", dist.Dirichlet(shape))
    pyro.sample("t", dist.StudentT(4.0, shape[2], 0.5))


def correlated(y):
    tril = pyro.sample("tril", dist.LKJCholesky(2, 2.0))
    x = pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=tril))
    with poutine.scale(scale=0.5), poutine.mask(mask=y > -1), pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(pyro.deterministic("sum", x.sum(-1)), 1.0), obs=y)


def switches(y):
    """Two layers of discrete variables."""
    loc = pyro.param("loc", torch.tensor([-1.0, 0.0, 1.0]))
    with pyro.plate("data", len(y)):
        a = pyro.sample("a", dist.Bernoulli(0.4))
        k = pyro.sample("k", dist.Categorical(torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]])[a.long()]))
        pyro.sample("y", dist.Normal(loc[k], 1.0), obs=y)


def switches_guide(y):
    logits = pyro.param("logits", torch.linspace(-1, 1, 4 * len(y)).reshape(len(y), 4), event_dim=1)
    with pyro.plate("data", len(y)):
        pyro.sample("a", dist.Bernoulli(logits=logits[..., 0]))
        pyro.sample("k", dist.Categorical(logits=logits[..., 1:]))


def mixture(y, batch=None):
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 2.0).to_event(1))
    weight = pyro.sample("weight", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("data", len(y), subsample_size=batch) as rows:
        z = pyro.sample("z", dist.Categorical(weight))
        pyro.sample("y", dist.Normal(loc[..., z], 1.0), obs=y[rows])


def many_mixtures(y):
    """A mixture that broadcasts over several draws of its means."""
    loc = pyro.sample("loc", dist.Normal(torch.tensor(0.5), 2.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Bernoulli(0.4))
        pyro.sample("y", dist.Normal(loc * (2 * z - 1), 1.0), obs=y)


def chain(y):
    """A hidden Markov model."""
    rows = pyro.sample("rows", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    z = 0
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z{t}", dist.Categorical(rows[..., z, :]))
        pyro.sample(f"y{t}", dist.Normal(loc[..., z], 1.0), obs=y[t])


def chain_as_distribution(y):
    logits = pyro.sample("logits", dist.Normal(torch.zeros(2, 2), 1.0).to_event(2))
    loc = pyro.sample("loc", dist.Normal(torch.tensor([-1.0, 1.0]), 1.0).to_event(1))
    rows = logits.log_softmax(-1)
    pyro.sample("y", dist.DiscreteHMM(torch.zeros(2), rows, dist.Normal(loc, 1.0), duration=len(y)), obs=y)


def one_switch(y):
    z = pyro.sample("z", dist.Bernoulli(0.4))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(pyro.param("high", torch.tensor(0.5)) * z, 1.0), obs=y)


def one_switch_guide(y):
    pyro.sample("z", dist.Bernoulli(pyro.param("p", torch.tensor(0.3), constraint=constraints.unit_interval)))


def circular(y):
    angle = pyro.sample("angle", dist.VonMises(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(angle, 1.0), obs=y)


def circular_guide(y):
    pyro.sample("angle", dist.VonMises(pyro.param("at", torch.tensor(0.1)), 2.0))


def both(model):
    guides = AutoGuideList(model)
    guides.append(AutoNormal(poutine.block(model, hide=["slope"])))
    guides.append(AutoDelta(poutine.block(model, expose=["slope"])))
    return guides


@dataclass(frozen=True)
class Program:
    """A program, and what becomes of it under lanes."""

    model: Any
    guide: Any
    estimator: Any = "trace"
    args: tuple[Any, ...] = (Y,)
    outcome: str = "captured"
    """Or what the refusal says: a regular expression."""


def several(name, count=2, **keys):
    return {"name": name, "num_particles": count, **keys}


PROGRAMS = {
    "constrained": Program(mean, constrained),
    "pyro_module": Program(Regression, AutoNormal),
    "pyro_network": Program(Plain, prior_guide),
    "pyro_network_stl": Program(Plain, prior_guide, "stl"),
    "networks": Program(CODED, CODED.guide),
    "networks_stl": Program(CODED, CODED.guide, "stl"),
    "networks_dreg": Program(CODED, CODED.guide, several("dreg", vectorize_particles=True)),
    "structured": Program(line, AutoStructured),
    "guide_list": Program(line, both(line)),
    "normal_messenger": Program(line, AutoNormalMessenger(line)),
    "hierarchical_messenger": Program(line, AutoHierarchicalNormalMessenger(line)),
    "regressive_messenger": Program(line, AutoRegressiveMessenger(line)),
    "minibatches_of_two_plates": Program(crossed, crossed_guide),
    "gammas": Program(positive, positive_guide),
    "scale_mask_lkj": Program(correlated, AutoNormal),
    "score_function": Program(switches, switches_guide, several("trace")),
    "network_baseline": Program(
        switches, switches_guide, several("trace_graph", baselines={"a": "decaying", "k": {"kind": "network"}})
    ),
    "vimco": Program(switches, switches_guide, several("vimco", 3, vectorize_particles=True)),
    "rloo_looped": Program(switches, switches_guide, several("rloo")),
    "iwae_vectorized": Program(line, AutoNormal, several("iwae", vectorize_particles=True)),
    "iwae_looped": Program(line, AutoNormal, several("iwae")),
    "mixture": Program(mixture, AutoNormal, "trace_enum"),
    "mixture_particles": Program(mixture, AutoNormal, several("trace_enum")),
    "mixture_vectorized": Program(many_mixtures, AutoNormal, several("trace_enum", 3, vectorize_particles=True)),
    "mixture_minibatches": Program(mixture, "auto_normal", "trace_enum", (Y, 3)),
    "chain": Program(chain, AutoNormal, "trace_enum", (Y[:4],)),
    "chain_as_distribution": Program(chain_as_distribution, AutoNormal),
    "enumerated_in_guide": Program(switches, switches_guide, "trace_enum"),
    "enumerated_one_by_one": Program(one_switch, one_switch_guide, {"name": "trace_enum", "enumerate": "sequential"}),
    "discrete_parallel": Program(switches, AutoDiscreteParallel, "trace_enum"),
    "tmc_sums": Program(chain, AutoNormal, "trace_tmc", (Y[:4],)),
    "tmc_draws": Program(many_mixtures, AutoNormal, {"name": "trace_tmc", "num_samples": 3}),
    "laplace": Program(line, AutoLaplaceApproximation),
    "gaussian": Program(line, AutoGaussian, outcome=r"gaussian.py:\d+: vmap: scatter_add_.*"),
    "running_mean": Program(Normalised(), Normalised().guide, outcome="running it changes .*, a buffer of a network"),
    "von_mises": Program(
        circular, circular_guide, "trace_graph", outcome=r"lane_programs.py:\d+: branches on the value of a tensor"
    ),
}
"""Name → program. Loops, vectorised particles, Rényi bounds and baselines of Pyro are in ``test_lanes.py``, too."""
