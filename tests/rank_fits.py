"""What every rank of a test runs: ``python rank_fits.py BACKEND FOLDER [not_averaged]`` writes ``FOLDER/RANK.json``."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

import sweepvi
from sweepvi.distributed import launched
from sweepvi.distributed.ranks import Ranks
from sweepvi.engine.checkpoint import digest_of
from sweepvi.engine.observer import Observer
from sweepvi.errors import ConfigError

Y = torch.linspace(-1.0, 2.0, 10)
TAKEN = 3
DEVICE = os.environ.get("SWEEPVI_TEST_DEVICE", "cpu")
STEPS = 200
SCHEDULE = {"name": "exponential", "gamma": 0.99}
PARTITION = {"name": "loc_scale", "scale": {"lr_factor": 0.5}}
OPTIMIZERS = {
    "sgd": {"lr": 0.002, "momentum": 0.5},
    "adam": {"lr": 0.03},
    "clipped_adam": {"lr": 0.03, "lrd": 0.999, "clip_norm": 2.0},
    "adagrad_rmsprop": {"eta": 0.3},
    "dct_adam": {"lr": 0.03, "clip_norm": 2.0},
}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.1}
CLIPS = {"value": 1.0, "norm": 0.7, "global_norm": 1.5}
ROWS = {f"{name}-{kind}": (name, kind) for name, kind in itertools.product(OPTIMIZERS, [None, *CLIPS])}
LANES = ["sgd-value", "clipped_adam-global_norm", "dct_adam-norm"]
RESTARTS = 2
FEW = ["sgd-None", "sgd-value", "adam-norm", "clipped_adam-global_norm", "adagrad_rmsprop-norm", "dct_adam-global_norm"]
FEWER = FEW[2:4]
"""Below other backends there is the same all-reduce."""


def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y), subsample_size=TAKEN) as batch:
        pyro.sample("y", dist.Normal(mu, spread), obs=y[batch])


def guide(y):
    loc = pyro.param("loc", torch.tensor([0.0, 0.5]))
    scale = pyro.param("scale", torch.tensor([0.3, 0.2]), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(loc[0], scale[0]))
    pyro.sample("spread", dist.LogNormal(loc[1], scale[1]))


def settings(optimizer, kind):
    clip = {kind: CLIPS[kind]} if kind else {}
    return {
        "optimizer": {"name": optimizer, **OPTIMIZERS[optimizer], "clip": clip},
        "scheduler": SCHEDULE,
        "partition": PARTITION,
    }


def fit(backend, model=model, args=(Y,), **more):
    node = {"name": backend, "timeout": 60.0, **more.pop("distributed", {})}
    defaults = {"guide": guide, "steps": STEPS, "dtype": "float64", "score_draws": 0, "posterior_draws": 0}
    engine = {"engine": "eager", "distributed": node, "device": DEVICE}
    return sweepvi.fit(model, args, **{**defaults, **engine, **more})


def by_lanes(backend, name, **more):
    lanes = {"engine": "lanes", "restarts": RESTARTS, "dtype": "float64"}
    return fit(backend, **{**lanes, **settings(*ROWS[name]), **more})


def of_lanes(result):
    """What the result has, and where each restart ended."""
    found = told(result) | {"engine": result.engine, "notes": list(result.notes), "rows": {}}
    if result.engine == "lanes":
        tensors, meta = result.runnable.snapshot.get("lanes")
        found["rows"] = dict(zip(meta["seeds"], tensors["0"].tolist(), strict=True))
    return found


def told(result):
    tensors = {name: value.contiguous() for name, value in result.params.items()}
    common = {k: v for k, v in result.runnable.snapshot.tensors.items() if not k.startswith("random/")}
    return {
        "params": {name: value.flatten().tolist() for name, value in tensors.items()},
        "digest": digest_of(common),
        "losses": result.losses.tolist(),
        "agree": result.ranks_agree,
        "world_size": result.world_size,
        "status": result.status,
        "message": result.message,
        "steps": result.steps,
    }


def rank():
    return launched().rank


def delta(y):
    """Nothing random: the whole shard at once, and points for a guide."""
    point = pyro.param("point", torch.tensor(0.3, dtype=torch.float64))
    with pyro.plate("data", len(y), subsample_size=-(-len(y) // 2)) as batch:
        pyro.sample("y", dist.Normal(point, 1.0), obs=y[batch])


def nothing(y):
    pyro.param("unused", torch.tensor(0.0, dtype=torch.float64))


class OneSided:
    """Only rank 0 depends on ``b``, nobody on ``c``; ``late`` appears after some evaluations."""

    calls = 0

    def __call__(self, y):
        self.calls += 1
        model(y)
        a, b = (pyro.param(name, torch.tensor(1.0, dtype=torch.float64)) for name in "ab")
        pyro.param("c", torch.tensor(1.0, dtype=torch.float64))
        cost = a**2 + (2 * b if rank() == 0 else 0.0)
        if self.calls > 4:
            cost = cost + pyro.param("late", torch.tensor(1.0 + rank(), dtype=torch.float64)) ** 2
        pyro.factor("cost", -cost)


class NaNOnOne:
    """Some evaluations on rank 1 are NaN."""

    calls = 0

    def __call__(self, y):
        self.calls += 1
        model(y)
        odd = rank() == 1 and 8 < self.calls < 12
        pyro.factor("odd", pyro.param("a", torch.tensor(1.0)) * float("nan" if odd else 0.0))


def other_shapes(y):
    model(y)
    pyro.factor("cost", pyro.param("wide", torch.ones(2 + rank())).sum())


def falls(y):
    """Rank 1 finds no finite number where ``a`` has fallen below 0.5."""
    model(y)
    a = pyro.param("a", torch.tensor(1.0, dtype=torch.float64))
    pyro.factor("odd", -a + (0.0 * (a - 0.5).sqrt() if rank() == 1 else 0.0))


class Stopping(Observer):
    """Only rank 0 has one; it is asked to stop, and all must."""

    def __init__(self, at=7):
        self.at = at

    def stepped(self, step, loss):
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def networks(backend):
    result = sweepvi.fit(
        "digits_vae", guide="own", engine="eager", steps=4, score_draws=0, posterior_draws=0, device=DEVICE,
        distributed={"name": backend},
    )  # fmt: skip
    return told(result) | {"params": {}}


def refused(backend, **how):
    try:
        fit(backend, other_shapes, **{"steps": 2, **how})
    except ConfigError as error:
        return {"refused": str(error)}
    return {}


def extra(backend):
    """Cases beside those of :data:`ROWS`."""
    adam = {"optimizer": {"name": "adam", "lr": 0.03}}
    half = {"distributed": {"compression": "fp16" if backend == "horovod" else "bf16"}}
    yield "accumulate", lambda: fit(backend, steps=40, distributed={"accumulate": 2}, **settings("adam", "norm"))
    yield "compressed", lambda: fit(backend, steps=40, **half, **settings("adam", "norm"))
    yield "float32", lambda: fit(backend, steps=40, dtype="float32", **settings("clipped_adam", "global_norm"))
    yield "baselines", lambda: sweepvi.fit(
        "digits_sbn", guide="own", estimator="trace_graph", engine="eager", steps=4, score_draws=0, posterior_draws=0,
        distributed={"name": backend},
    )  # fmt: skip
    for size in (10, 9):
        yield f"delta{size}", lambda size=size: fit(backend, delta, (Y[:size].double(),), guide=nothing, steps=12)
    yield (
        "one_sided",
        lambda: fit(backend, OneSided(), steps=8, optimizer=SGD),
    )
    yield "nan", lambda: fit(backend, NaNOnOne(), steps=20, **adam)
    yield "nan_skipped", lambda: fit(backend, NaNOnOne(), steps=20, on_nonfinite="skip", **adam)
    yield "stopped", lambda: fit(backend, steps=50, progress=Stopping(), **adam)
    yield "auto", lambda: fit(backend, steps=200, stop={"name": "auto", "window": 64, "draws": 32}, **adam)


def lanes(backend):
    """Fits that are lanes."""
    for name in LANES:
        yield name, lambda name=name: by_lanes(backend, name)
    adam = {"optimizer": {"name": "adam", "lr": 0.03}}
    yield "nan", lambda: by_lanes(backend, "adam-None", model=falls, restarts=1, steps=100)
    yield "nan_skipped", lambda: by_lanes(backend, "adam-None", model=falls, steps=100, on_nonfinite="skip")
    yield "stopped", lambda: fit(backend, engine="lanes", steps=500, progress=Stopping(64), **adam)
    yield "auto", lambda: fit(backend, engine="auto", stop={"name": "auto", "window": 64, "draws": 32}, **adam)
    yield "scored", lambda: fit(backend, engine="auto", steps=100, dtype="float32", score_draws=50, **adam)
    half = {"compression": "fp16" if backend == "horovod" else "bf16"}
    yield "compressed", lambda: by_lanes(backend, LANES[1], distributed=half)
    yield "accumulate", lambda: fit(backend, engine="auto", steps=120, distributed={"accumulate": 2}, **adam)
    yield "baselines", lambda: sweepvi.fit(
        "digits_sbn", guide="own", estimator="trace_graph", engine="lanes", restarts=1, steps=4, score_draws=0,
        posterior_draws=0, distributed={"name": backend},
    )  # fmt: skip


def many(backend):
    """Fits of settings of their own, at once."""
    node = {"name": backend, "timeout": 60.0}
    engine = {"steps": 120, "dtype": "float64", "device": DEVICE}
    common = {"guide": guide, "score_draws": 0, "posterior_draws": 0, **engine}
    found = sweepvi.fit_many(
        model, (Y,), distributed=node, engine="lanes", restarts=1, **common,
        settings=[settings(*ROWS[LANES[1]]), {**settings(*ROWS[LANES[0]]), "seed": 5}],
    )  # fmt: skip
    return {f"many{place}": of_lanes(result) for place, result in enumerate(found)}


def on_a_gpu(backend):
    """What is worth seeing there; the rest is the same code as on a processor."""
    half = {"distributed": {"compression": "bf16"}}
    found = {name: of_lanes(by_lanes(backend, name)) for name in LANES}
    found["compressed"] = of_lanes(by_lanes(backend, LANES[1], **half))
    found |= {f"eager {name}": told(fit(backend, **settings(*ROWS[name]))) for name in FEWER}
    found["networks"] = networks(backend)
    return found | many(backend)


def main(backend, folder, *words):
    torch.set_num_threads(1)
    if "gpu" in words:
        Path(folder, f"{rank()}.json").write_text(json.dumps(on_a_gpu(backend)))
        return
    if "lanes" in words:
        if "not_averaged" in words:
            Ranks.average_ = lambda self, tensor: None
            found = {LANES[0]: of_lanes(by_lanes(backend, LANES[0]))}
        else:
            found = {name: of_lanes(run()) for name, run in lanes(backend)} | many(backend)
            found |= {"refused": refused(backend, engine="lanes", restarts=1, steps=200)}
        Path(folder, f"{rank()}.json").write_text(json.dumps(found))
        return
    if "not_averaged" in words:
        Ranks.average_ = lambda self, tensor: None
        rows = ["adam-norm"]
    else:
        rows = ROWS if "all" in words else FEW if backend == "gloo" else FEWER
    found = {name: told(fit(backend, **settings(*ROWS[name]))) for name in rows}
    if "more" in words:
        found |= {name: told(run()) for name, run in extra(backend)}
        found |= {"networks": networks(backend), "refused": refused(backend)}
    Path(folder, f"{rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
