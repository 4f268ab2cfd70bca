"""Time of one eager step, side by side with Pyro's.

Two comparisons: on a model of many small parameters, and on the shipped radon model. What counts is the ratio between
contenders timed in turn in one process; milliseconds are the machine's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim
import torch
from pyro.infer.autoguide import AutoNormal, init_to_median
from pyro.infer.svi import SVI
from pyro.infer.trace_elbo import Trace_ELBO
from side_by_side import HEADER, WARM_UP, Block, Case, in_turn, rows, show
from torch import Tensor

import sweepvi
from sweepvi.engine import Observer
from sweepvi.models.radon import Radon
from sweepvi.problem import Problem

HYPER: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "clip_norm": 10.0, "lrd": 1.0}
SEED = 0


def many_small_model(targets: Tensor) -> None:
    """One latent vector a row of ``targets``; a single observed site, so that latent sites dominate."""
    center = torch.zeros_like(targets[0])
    latent = [pyro.sample(f"x_{i}", dist.Normal(center, 1.0).to_event(1)) for i in range(len(targets))]
    pyro.sample("y", dist.Normal(torch.stack(latent), 1.0).to_event(2), obs=targets)


def many_small_guide(targets: Tensor) -> None:
    """One parameter tensor a latent site; the scale is fixed, so there are no others."""
    for i, row in enumerate(targets):
        loc = pyro.param(f"loc_{i}", torch.zeros_like(row))
        pyro.sample(f"x_{i}", dist.Normal(loc, 0.1).to_event(1))


class Stamps(Observer):
    """The clock after every step of sweepvi's own loop, and its losses."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def stepped(self, step: int, loss: float) -> None:
        del step
        self.times.append(time.perf_counter())
        self.losses.append(loss)

    def block(self) -> Block:
        """The steps so far as a block."""
        timed = self.times[WARM_UP - 1 :]
        return Block((timed[-1] - timed[0]) / (len(timed) - 1), torch.tensor(self.losses, dtype=torch.float64))


def pyro_fit(problem: Problem, make_guide: Callable[[], Any], steps: int) -> Block:
    """Pyro's documented loop: ``svi.step`` and a list of losses."""
    with empty_store():
        pyro.set_rng_seed(SEED)
        svi = SVI(problem.model, make_guide(), pyro.optim.ClippedAdam(HYPER), Trace_ELBO())
        svi.evaluate_loss(*problem.args, **problem.kwargs)
        # Autoguides draw when they first run; sweepvi seeds anew after that, and the draws are to be the same.
        pyro.set_rng_seed(SEED)
        stamps = Stamps()
        for step in range(WARM_UP + steps):
            loss: Any = svi.step(*problem.args, **problem.kwargs)
            stamps.stepped(step, loss)
        return stamps.block()


def sweepvi_fit(model: Any, arguments: dict[str, Any], steps: int) -> Block:
    """The public ``sweepvi.fit`` on the eager engine, scoring aside; its loop is timed, not a stripped one."""
    stamps = Stamps()
    sweepvi.fit(
        model,
        **arguments,
        engine="eager",
        optimizer={"name": "clipped_adam", **HYPER},
        progress=stamps,
        steps=WARM_UP + steps,
        seed=SEED,
        score_draws=0,
    )
    return stamps.block()


@contextmanager
def empty_store() -> Iterator[None]:
    """Pyro's parameter store is global: empty before a fit of Pyro's, and after it."""
    pyro.clear_param_store()
    try:
        yield
    finally:
        pyro.clear_param_store()


def cases(tensors: int, elements: int) -> list[Case]:
    """The comparisons, in the order of the table."""
    targets = torch.randn(tensors, elements, generator=torch.Generator().manual_seed(SEED))
    small = Problem(many_small_model, (targets,))
    radon = Radon().problem(_no_loading)
    radon_guide = partial(AutoNormal, radon.model, init_loc_fn=init_to_median, init_scale=0.1)
    return [
        Case(
            f"whole step, {tensors} x [{elements}]",
            {
                "Pyro SVI": partial(pyro_fit, small, lambda: many_small_guide),
                "sweepvi.fit": partial(sweepvi_fit, small.model, {"args": small.args, "guide": many_small_guide}),
            },
        ),
        Case(
            "whole step, radon",
            {
                "Pyro SVI": partial(pyro_fit, radon, radon_guide),
                "sweepvi.fit": partial(sweepvi_fit, "radon", {"guide": "auto_normal"}),
            },
            longer=10,
        ),
    ]


def _no_loading(*arguments: Any) -> Any:
    raise AssertionError(f"a shipped model loads nothing: {arguments}")


def first_and_last(case: Case, blocks: dict[str, list[Block]]) -> Iterator[str]:
    """The loss at the start and the end of each contender's fit."""
    for name, own in blocks.items():
        if own[0].path.dim() == 1:
            yield f"{case.name}, {name}: -ELBO {own[0].path[0]:.3f} -> {own[0].path[-1]:.3f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=300, help="parameter tensors")
    parser.add_argument("--elements", type=int, default=10, help="elements of each")
    parser.add_argument("--steps", type=int, default=50, help="timed steps in a block")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each contender")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: list[tuple[str, ...]] = [HEADER]
    losses: list[str] = []
    for case in cases(options.tensors, options.elements):
        blocks = in_turn(case, options.steps, options.rounds)
        table += rows(case, blocks)
        losses += first_and_last(case, blocks)
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, one thread")
    print(f"{options.rounds} rounds of {options.steps} steps in turn (radon: 10 times as many)\n")
    show(table)
    print("\nspeed-up: median over rounds of Pyro's time / the contender's; range: over rounds.")
    print("apart: largest relative difference from Pyro's losses, same seed.\n")
    print("\n".join(losses))


if __name__ == "__main__":
    main()
