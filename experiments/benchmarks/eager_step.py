"""Time of one eager step, side by side with Pyro's.

Three comparisons: the whole step on a model of many small parameters, the whole step on the shipped radon model, and
the optimizer alone. What counts is the ratio between contenders timed in turn in one process; milliseconds are the
machine's.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import pyro.optim
import torch
from pyro.infer.autoguide import AutoNormal, init_to_median
from pyro.infer.svi import SVI
from pyro.infer.trace_elbo import Trace_ELBO
from torch import Tensor

import sweepvi
from sweepvi.engine import Observer
from sweepvi.models.radon import Radon
from sweepvi.optim import ClippedAdam
from sweepvi.problem import Problem

HYPER: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "clip_norm": 10.0, "lrd": 1.0}
SEED = 0
WARM_UP = 5
"""Steps before the clock starts: the first ones create parameters, optimizers and caches."""


@dataclass(frozen=True)
class Block:
    """Consecutive steps of a fresh fit."""

    seconds: float
    """Per step, warm-up left out."""
    path: Tensor
    """What the steps computed, for comparison: losses of a fit, final parameters of an optimizer."""


Contender: TypeAlias = Callable[[int], Block]
"""Sets up, warms up, and takes that many timed steps."""


@dataclass(frozen=True)
class Case:
    """Contenders that do the same work; the first is the peer that the others are compared with."""

    name: str
    contenders: dict[str, Contender]
    longer: int = 1
    """Factor on the steps of a block, where a step is so short that the default would measure interruptions."""


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
    """The public ``sweepvi.fit`` with its defaults, scoring aside; its loop is timed, not a stripped one."""
    stamps = Stamps()
    sweepvi.fit(
        model,
        **arguments,
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


def optimizer_steps(make: Callable[[list[Tensor]], Callable[[], Any]], shape: tuple[int, int], steps: int) -> Block:
    """Updates of rows as separate parameters under the same gradients; nothing but the update is timed."""
    generator = torch.Generator().manual_seed(SEED)
    params = [row.clone().requires_grad_() for row in torch.randn(shape, generator=generator)]
    for param, grad in zip(params, torch.randn(shape, generator=generator), strict=True):
        param.grad = grad.clone()
    step = make(params)
    for _ in range(WARM_UP):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    return Block(seconds / steps, torch.stack(params).detach().double())


def pyro_optimizer(params: list[Tensor]) -> Callable[[], Any]:
    """One torch optimizer a tensor, as ``SVI`` uses it."""
    return partial(pyro.optim.ClippedAdam(HYPER), params)


def sweepvi_optimizer(params: list[Tensor]) -> Callable[[], Any]:
    """One optimizer over all."""
    return ClippedAdam(params, **HYPER).step


def torch_optimizer(params: list[Tensor]) -> Callable[[], Any]:
    """Torch's multi-tensor path, for scale. Adam, as torch has no ClippedAdam; so its parameters differ a little."""
    return torch.optim.Adam(params, lr=HYPER["lr"], betas=HYPER["betas"], eps=HYPER["eps"], foreach=True).step


def cases(tensors: int, elements: int) -> list[Case]:
    """The comparisons, in the order of the table."""
    targets = torch.randn(tensors, elements, generator=torch.Generator().manual_seed(SEED))
    small = Problem(many_small_model, (targets,))
    radon = Radon().problem(_no_loading)
    radon_guide = partial(AutoNormal, radon.model, init_loc_fn=init_to_median, init_scale=0.1)
    shape = (tensors, elements)
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
        Case(
            f"optimizer, {tensors} x [{elements}]",
            {
                "Pyro ClippedAdam": partial(optimizer_steps, pyro_optimizer, shape),
                "sweepvi ClippedAdam": partial(optimizer_steps, sweepvi_optimizer, shape),
                "torch Adam(foreach)": partial(optimizer_steps, torch_optimizer, shape),
            },
            longer=4,
        ),
    ]


def _no_loading(*arguments: Any) -> Any:
    raise AssertionError(f"a shipped model loads nothing: {arguments}")


def in_turn(case: Case, steps: int, rounds: int) -> dict[str, list[Block]]:
    """Blocks of each contender; the order turns round every time, so that drift favours none."""
    blocks: dict[str, list[Block]] = {name: [] for name in case.contenders}
    names = list(blocks)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            # Garbage of the one before is not this one's cost.
            gc.collect()
            blocks[name].append(case.contenders[name](case.longer * steps))
    return blocks


def rows(case: Case, blocks: dict[str, list[Block]]) -> Iterator[tuple[str, ...]]:
    """The case's lines of the table."""
    peer = next(iter(blocks.values()))
    for name, own in blocks.items():
        milliseconds = [1e3 * block.seconds for block in own]
        ratios = [other.seconds / block.seconds for block, other in zip(own, peer, strict=True)]
        apart = max(difference(block.path, other.path) for block, other in zip(own, peer, strict=True))
        yield (
            case.name if own is peer else "",
            name,
            f"{min(milliseconds):.3f}",
            f"{statistics.median(milliseconds):.3f}",
            "1" if own is peer else f"{statistics.median(ratios):.2f}",
            "" if own is peer else f"{min(ratios):.2f}-{max(ratios):.2f}",
            "" if own is peer else f"{apart:.0e}",
        )


def difference(left: Tensor, right: Tensor) -> float:
    """Largest difference of two paths, relative to the largest entry."""
    return float((left - right).abs().max() / right.abs().max())


HEADER = ("case", "contender", "min ms", "median ms", "speed-up", "range", "apart")


def show(lines: list[tuple[str, ...]]) -> None:
    """Print the table with its columns aligned: words to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    for line in lines:
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


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
    print(f"{options.rounds} rounds of {options.steps} steps in turn (radon: 10 times as many; optimizer: 4 times)\n")
    show(table)
    print("\nspeed-up: median over rounds of Pyro's time / the contender's; range: over rounds.")
    print("apart: largest relative difference from Pyro's losses (or parameters, for the optimizer), same seed.\n")
    print("\n".join(losses))


if __name__ == "__main__":
    main()
