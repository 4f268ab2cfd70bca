"""What fits on ranks are compared with: one process that averages all ranks' gradients itself."""

from __future__ import annotations

import importlib.util
import json

import pyro
import pytest
import torch
from fork_server import started
from pyro.infer import Trace_ELBO
from pyro.optim.adagrad_rmsprop import AdagradRMSProp
from pyro.optim.clipped_adam import ClippedAdam
from pyro.optim.dct_adam import DCTAdam
from rank_fits import CLIPS, OPTIMIZERS, STEPS, TAKEN, Y, guide, model
from rank_runs import HERE, run

from sweepvi.distributed import Shards, seed_rank
from sweepvi.distributed.shards import shard
from sweepvi.engine.lanes.noise import Draw, NoiseLayout
from sweepvi.engine.lanes.rank_lanes import STREAMS

SCRIPT = str(HERE / "rank_fits.py")
WITHOUT_HOROVOD = pytest.mark.skipif(not importlib.util.find_spec("horovod"), reason="needs horovod")
BACKENDS = ["gloo", pytest.param("horovod", marks=WITHOUT_HOROVOD)]
LANES_BACKENDS = ["gloo", pytest.param("horovod", marks=[WITHOUT_HOROVOD, pytest.mark.long])]
"""Below lanes and eager fits there is the same all-reduce."""


def on_ranks(backend, folder, *words, ranks=2, device="cpu"):
    """What each rank has told: name of the fit → result."""
    how = {"by": backend, "ranks": ranks, "SWEEPVI_TEST_DEVICE": device}
    for status, out, errors in run(SCRIPT, backend, str(folder), *words, python=started(), **how):
        assert status == 0, out + errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


THEIRS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "clipped_adam": ClippedAdam,
    "adagrad_rmsprop": AdagradRMSProp,
    "dct_adam": DCTAdam,
}


def clip(grads, kind):
    """Of averaged gradients, by torch's own functions."""
    stand_ins = [torch.zeros_like(grad).requires_grad_() for grad in grads]
    for stand_in, grad in zip(stand_ins, grads, strict=True):
        stand_in.grad = grad.clone()
    if kind == "value":
        torch.nn.utils.clip_grad_value_(stand_ins, CLIPS[kind])
    elif kind == "global_norm":
        torch.nn.utils.clip_grad_norm_(stand_ins, CLIPS[kind])
    elif kind == "norm":
        for stand_in in stand_ins:
            torch.nn.utils.clip_grad_norm_([stand_in], CLIPS[kind])
    return [stand_in.grad for stand_in in stand_ins]


class PyrosLoss:
    """Pyro's own, under a rank's draws and minibatches."""

    def __init__(self, ranks):
        self.ranks, self.y, self.elbo = ranks, torch.tensor(Y.tolist(), dtype=torch.float64), Trace_ELBO()
        self.shards = [Shards(0, rank, ranks) for rank in range(ranks)]

    def __call__(self, params, rank, number):
        seed_rank(0, rank, number)
        with self.shards[rank].at(number):
            return self.elbo.loss_and_grads(model, guide, self.y)


class LossByHand:
    """Minus the ELBO of a lane's draws, written down; minibatches are parts of a rank's share of each epoch."""

    def __init__(self, seed, ranks):
        self.seed, self.ranks = seed, ranks
        self.layout = NoiseLayout([Draw("normal", (), torch.float64)] * 2)

    def __call__(self, params, rank, number):
        at = torch.tensor([self.seed]), torch.tensor([number])
        [noise] = self.layout.filled(*at, rank * STREAMS).values()
        epoch, turn = divmod(number, -(-len(Y) // self.ranks) // TAKEN)
        share = shard(len(Y), 0, f"data {len(Y)} {TAKEN} 0", epoch, rank, self.ranks)
        y = Y.double()[share[turn * TAKEN : (turn + 1) * TAKEN]]
        loc, scale = params["loc"], params["scale"].exp()
        mu, log_spread = loc + scale * noise[0, 0]
        normal = torch.distributions.Normal
        log_q = normal(loc, scale).log_prob(torch.stack([mu, log_spread])).sum()
        prior = normal(0.0, 5.0).log_prob(mu) + normal(0.0, 1.0).log_prob(log_spread)
        loss = log_q - prior - len(Y) / TAKEN * normal(mu, log_spread.exp()).log_prob(y).sum()
        loss.backward()
        return loss.item()


def by_one_process(optimizer, kind, loss=None, accumulate=1, steps=STEPS):
    """A loss and an optimizer of torch's or Pyro's, in float64: the same draws, one rank's after another's."""
    torch.set_default_dtype(torch.float64)
    try:
        return _by_one_process(optimizer, kind, loss or PyrosLoss(2), accumulate, steps)
    finally:
        torch.set_default_dtype(torch.float32)


def _by_one_process(optimizer, kind, loss_of, accumulate, steps):
    ranks = loss_of.ranks
    pyro.clear_param_store()
    guide(Y)
    params = dict(pyro.get_param_store()._params)
    rate = "eta" if optimizer == "adagrad_rmsprop" else "lr"
    base = {"loc": OPTIMIZERS[optimizer][rate], "scale": 0.5 * OPTIMIZERS[optimizer][rate]}
    theirs = {n: THEIRS[optimizer]([p], **{**OPTIMIZERS[optimizer], rate: base[n]}) for n, p in params.items()}
    losses = []
    for step in range(steps):
        found, loss = [], 0.0
        for rank in range(ranks):
            for number in range(step * accumulate, (step + 1) * accumulate):
                loss += loss_of(params, rank, number) / ranks / accumulate
                found.append([param.grad.clone() for param in params.values()])
                for param in params.values():
                    param.grad = None
        averages = [sum(grads) / len(grads) for grads in zip(*found, strict=True)]
        for (name, param), grad in zip(params.items(), clip(averages, kind), strict=True):
            param.grad = grad
            for group in theirs[name].param_groups:
                # Pyro's ClippedAdam multiplies its own step size by lrd; the schedule comes on top of that.
                decay = OPTIMIZERS[optimizer].get("lrd", 1.0) ** step
                group[rate] = base[name] * 0.99**step * decay
            theirs[name].step()
            param.grad = None
        losses.append(loss)
    result = {name: pyro.param(name).detach().flatten() for name in params}
    pyro.clear_param_store()
    return result, losses


def demand_agreement(told, names):
    for name in names:
        first, *others = (each[name] for each in told)
        assert (first["agree"], first["world_size"]) == (True, len(told)), name
        for other in others:
            assert first["digest"] == other["digest"], name
            assert same(first["losses"], other["losses"]), name


def same(left, right):
    """Equal lists of numbers; NaN is equal to itself."""
    return repr(left) == repr(right)
