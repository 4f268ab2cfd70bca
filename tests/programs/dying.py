"""A model that ends its process, or fails, at an evaluation, on a rank: as DIE_RANK, DIE_AT and DIE_HOW say."""

import os
import signal

import pyro
import pyro.distributions as dist
import torch

data = {"y": torch.linspace(-1.0, 2.0, 10)}
calls = 0


def die():
    global calls
    calls += 1
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if again or os.environ.get("DIE_RANK") != os.environ["RANK"] or calls != int(os.environ["DIE_AT"]):
        return
    if os.environ.get("DIE_HOW") == "nan":
        raise ZeroDivisionError("a number that is none")
    if os.environ.get("DIE_HOW") == "raise":
        raise LookupError("a bug of the model's")
    os.kill(os.getpid(), signal.SIGKILL)


def model(y):
    die()
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("data", len(y), subsample_size=3) as batch:
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y[batch])
