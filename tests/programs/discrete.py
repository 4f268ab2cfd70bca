"""A discrete latent variable with a decaying-average baseline: for TraceGraph."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

data = (torch.tensor([2.1, 1.9, 2.3]),)


def model(x):
    high = pyro.sample("high", dist.Bernoulli(0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(2.0 * high, 1.0), obs=x)


def guide(x):
    p = pyro.param("p", torch.tensor(0.5), constraint=constraints.unit_interval)
    pyro.sample("high", dist.Bernoulli(p), infer={"baseline": {"use_decaying_avg_baseline": True}})
