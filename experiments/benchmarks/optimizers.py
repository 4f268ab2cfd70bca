"""Time of one optimizer step, side by side with Pyro's and torch's own classes.

Three comparisons: many small parameters, one large one, and many time series. Gradients are fixed, and nothing but the
update is timed. What counts is the ratio between contenders timed in turn in one process; milliseconds are the
machine's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import pyro
import torch
from pyro.optim.clipped_adam import ClippedAdam as PyroClippedAdam
from pyro.optim.dct_adam import DCTAdam as PyroDCTAdam
from pyro.optim.optim import PyroOptim
from side_by_side import HEADER, WARM_UP, Block, Case, in_turn, rows, show
from torch import Tensor

from sweepvi.optim import Adam, ClippedAdam, DCTAdam

HYPER: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}
CLIPPED: dict[str, Any] = {**HYPER, "clip_norm": 10.0, "lrd": 1.0}
SEED = 0

Make: TypeAlias = Callable[[list[Tensor]], Callable[[], Any]]
"""Makes an optimizer of parameters that have gradients; returns what takes a step."""


def timed(make: Make, shapes: list[tuple[int, ...]], steps: int) -> Block:
    """Updates of parameters of some shapes, under the same gradients for every contender."""
    generator = torch.Generator().manual_seed(SEED)
    params = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
        param._pyro_dct_dim = -1  # type: ignore[attr-defined]  # where DCTAdam, Pyro's and ours, finds it
    step = make(params)
    for _ in range(WARM_UP):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    return Block(seconds / steps, torch.cat([param.detach().flatten() for param in params]).double())


def pyro_optim(factory: Any, hyper: dict[str, Any]) -> Make:
    """One torch optimizer a parameter, as ``SVI`` uses it."""
    return lambda params: partial(PyroOptim(factory, dict(hyper)), params)


def stepper(factory: Callable[..., torch.optim.Optimizer], **hyper: Any) -> Make:
    """One torch optimizer over all."""
    return lambda params: factory(params, **hyper).step


def small(tensors: int, elements: int) -> Case:
    """Many small parameters, as most models have them."""
    return case(
        f"{tensors} x [{elements}]",
        {
            "Pyro PyroOptim(ClippedAdam)": pyro_optim(PyroClippedAdam, CLIPPED),
            "sweepvi ClippedAdam": stepper(ClippedAdam, **CLIPPED),
            "sweepvi Adam": stepper(Adam, **HYPER),
            "torch Adam(foreach)": stepper(torch.optim.Adam, **HYPER, foreach=True),
            "torch Adam(fused)": stepper(torch.optim.Adam, **HYPER, fused=True),
        },
        [(elements,)] * tensors,
        longer=20,
    )


def large(elements: int) -> Case:
    """One large parameter, as networks have them."""
    return case(
        f"1 x [{elements:,}]",
        {
            "torch Adam(fused)": stepper(torch.optim.Adam, **HYPER, fused=True),
            "sweepvi Adam(compile)": stepper(Adam, **HYPER, compile=True),
            "sweepvi ClippedAdam(compile)": stepper(ClippedAdam, **CLIPPED, compile=True),
            "sweepvi Adam": stepper(Adam, **HYPER),
            "sweepvi ClippedAdam": stepper(ClippedAdam, **CLIPPED),
            "torch Adam(foreach)": stepper(torch.optim.Adam, **HYPER, foreach=True),
            "Pyro ClippedAdam": stepper(PyroClippedAdam, **CLIPPED),
        },
        [(elements,)],
    )


def series(number: int, length: int) -> list[Case]:
    """Time series under DCTAdam: as one parameter, and as a parameter each."""
    contenders = {
        "Pyro DCTAdam": stepper(PyroDCTAdam, **CLIPPED),
        "sweepvi DCTAdam": stepper(DCTAdam, **CLIPPED),
    }
    apart = {
        "Pyro PyroOptim(DCTAdam)": pyro_optim(PyroDCTAdam, CLIPPED),
        "sweepvi DCTAdam": contenders["sweepvi DCTAdam"],
    }
    return [
        case(f"DCTAdam, 1 x [{number:,}, {length:,}]", contenders, [(number, length)]),
        case(f"DCTAdam, {number:,} x [{length:,}]", apart, [(length,)] * number),
    ]


def case(name: str, makers: dict[str, Make], shapes: list[tuple[int, ...]], longer: int = 1) -> Case:
    """A case of contenders on parameters of some shapes."""
    return Case(name, {label: partial(timed, make, shapes) for label, make in makers.items()}, longer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="timed steps in a block; 20 times as many for small ones")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each contender")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--elements", type=int, default=10_000_000, help="elements of the large parameter")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table: list[tuple[str, ...]] = [HEADER]
    for one in [small(300, 10), large(options.elements), *series(1000, 1024)]:
        table += rows(one, in_turn(one, options.steps, options.rounds))
    print(f"torch {torch.__version__}, pyro {pyro.__version__}, {options.threads} thread(s)\n")
    show(table)
    print("\nspeed-up: median over rounds of the first contender's time / this one's; range: over rounds.")
    print("apart: largest difference of the parameters at the end from the first contender's, relative to the largest.")


if __name__ == "__main__":
    main()
