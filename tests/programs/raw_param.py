"""Raw ``pyro.param`` statements, constrained ones too, one of them in the model."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

data = {"x": torch.linspace(-1.0, 2.0, 40)}


def model(x):
    spread = pyro.param("spread", torch.tensor(1.0), constraint=constraints.positive)
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, spread), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(0.1), constraint=constraints.interval(0.001, 3.0))
    pyro.sample("mean", dist.Normal(loc, scale))
