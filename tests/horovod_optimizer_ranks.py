"""What every rank runs under horovodrun: SVI with ``HorovodOptimizer``, as Pyro's example does it."""

from __future__ import annotations

import sys
from pathlib import Path

import horovod.torch as hvd
import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from rank_fits import Y, guide, model

import sweepvi.optim as ours
from sweepvi.distributed import Shards, seed_rank

STEPS = 30


def optimizers():
    """Each with a fault of Pyro's class: clipping, and a schedule; and one of sweepvi's."""
    adam = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, "gamma": 0.9}
    return {
        "clipped": lambda: pyro.optim.Adam({"lr": 0.05}, {"clip_norm": 0.5}),
        "schedule": lambda: pyro.optim.ExponentialLR(dict(adam)),
        "ours": lambda: pyro.optim.PyroOptim(ours.ClippedAdam, {"lr": 0.05, "clip": {"norm": 0.5}}),
    }


def fit(optim, evaluate):
    """Positions after steps of which ``evaluate`` leaves the gradient."""
    pyro.clear_param_store()
    guide(Y)
    params = pyro.get_param_store()._params
    for step in range(STEPS):
        evaluate(step, params.values())
        optim(set(params.values()))
        if isinstance(getattr(optim, "pyro_optim", optim), pyro.optim.PyroLRScheduler):
            optim.step()
        for param in params.values():
            param.grad = None
    return torch.cat([params[name].detach().flatten() for name in sorted(params)])


def evaluated(rank, step):
    seed_rank(0, rank, step)
    with Shards(0, rank, 2).at(step):
        Trace_ELBO().loss_and_grads(model, guide, Y)


def both(step, params):
    """The average of both ranks' gradients, by one process."""
    grads = []
    for rank in range(2):
        evaluated(rank, step)
        grads.append([param.grad for param in params])
        for param in params:
            param.grad = None
    for param, first, other in zip(params, *grads, strict=True):
        param.grad = (first + other) / 2


def main(folder):
    torch.set_num_threads(1)
    hvd.init()
    found = {}
    for name, make in optimizers().items():
        found[name] = fit(ours.HorovodOptimizer(make()), lambda step, _: evaluated(hvd.rank(), step))
        found[f"{name} by one"] = fit(make(), both)
    svi = SVI(model, guide, ours.HorovodOptimizer(pyro.optim.Adam({"lr": 0.01}), op=hvd.Sum), Trace_ELBO())
    pyro.clear_param_store()
    pyro.set_rng_seed(hvd.rank())
    for _ in range(3):
        svi.step(Y)
    found["svi"] = torch.cat([param.detach().flatten() for param in pyro.get_param_store()._params.values()])
    torch.save(found, Path(folder, f"{hvd.rank()}.pt"))


if __name__ == "__main__":
    main(sys.argv[1])
