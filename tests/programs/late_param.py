"""A guide that creates a parameter only on some calls: dynamic structure."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

data = (torch.tensor([0.5, 1.5]),)


def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mean, 1.0).expand([2]).to_event(1), obs=x)


def guide(x):
    loc = pyro.param("loc", torch.tensor(0.0))
    if torch.rand(()) < 0.05:
        scale = pyro.param("scale", lambda: torch.rand(()) + 0.5, constraint=constraints.positive)
    else:
        scale = 0.5
    pyro.sample("mean", dist.Normal(loc, scale))
