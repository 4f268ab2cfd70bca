"""Cost of averaging gradients over two processes, beside torch's DistributedDataParallel and Pyro's HorovodOptimizer.

Starts its own processes. Timed is a step from loss to parameters: the backward pass of a sum whose gradients are given,
the average, and torch's SGD. Horovod's rows are there where ``horovod.torch`` imports.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.optim.optim import PyroOptim
from torch import Tensor, nn

from sweepvi.distributed import Ranks
from sweepvi.engine.together import Together
from sweepvi.registry import build

SIZES = {10: 2, 10_000: 20, 10_000_000: 20}
"""Numbers → in how many parameter tensors."""
SGD: dict[str, Any] = {"lr": 1e-9}


class Tensors(nn.Module):
    """Parameters whose gradients are given."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.zeros(size // count)) for _ in range(count)])

    def forward(self, gradients: list[Tensor]) -> Tensor:
        """A sum whose gradient is what is given."""
        return torch.stack([(part * row).sum() for part, row in zip(self.parts, gradients, strict=True)]).sum()


def given(module: Tensors, rank: int) -> list[Tensor]:
    """Gradients of a rank."""
    generator = torch.Generator().manual_seed(rank)
    return [torch.randn(part.shape, generator=generator) for part in module.parts]


def backward(params: Sequence[Tensor], gradients: list[Tensor]) -> None:
    """Leave given gradients in parameters, as a backward pass does."""
    for param in params:
        param.grad = None
    torch.stack([(param * row).sum() for param, row in zip(params, gradients, strict=True)]).sum().backward()


def stored(module: Tensors) -> list[Tensor]:
    """The same parameters in Pyro's store."""
    pyro.clear_param_store()
    for place, part in enumerate(module.parts):
        pyro.param(f"p{place}", part.detach())
    return list(pyro.get_param_store()._params.values())


def ours(module: Tensors, gradients: list[Tensor], ranks: Ranks) -> Callable[[], object]:
    """The engine's own all-reduce, with its look for what is not finite."""
    params = stored(module)
    together, optimizer = Together(ranks, "none", {}, ""), torch.optim.SGD(params, **SGD)
    together.meet()

    def step() -> None:
        backward(params, gradients)
        together.average(0.0, False)
        optimizer.step()

    return step


def ddp(module: Tensors, gradients: list[Tensor]) -> Callable[[], object]:
    """DDP, which averages during the backward pass."""
    wrapped, optimizer = nn.parallel.DistributedDataParallel(module), torch.optim.SGD(module.parameters(), **SGD)

    def step() -> None:
        for part in module.parts:
            part.grad = None
        wrapped(gradients).backward()
        optimizer.step()

    return step


def horovods(kind: type, module: Tensors, gradients: list[Tensor]) -> Callable[[], object]:
    """An optimizer of Pyro's kind that averages by Horovod."""
    params, optimizer = stored(module), kind(PyroOptim(torch.optim.SGD, SGD))

    def step() -> None:
        backward(params, gradients)
        optimizer(params)

    return step


def measure(step: Callable[[], object], steps: int) -> float:
    """Seconds of a step: the median."""
    seconds = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def work(backend: str, rounds: int, file: str) -> None:
    """What each process runs."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[float]]] = {}
    with _joined(backend) as ranks:
        for size, count in SIZES.items():
            module = Tensors(size, count)
            gradients = given(module, ranks.rank)
            steps = 4 if size > 1_000_000 else 40
            for _ in range(rounds):
                for name, make in _contenders(backend, module, gradients, ranks).items():
                    found.setdefault(str(size), {}).setdefault(name, []).append(measure(make(), steps))
        if ranks.rank == 0:
            Path(file).write_text(json.dumps(found), encoding="utf-8")


def _joined(backend: str):
    return build("distributed", {"name": backend}).joined("cpu")


def _contenders(
    backend: str, module: Tensors, gradients: list[Tensor], ranks: Ranks
) -> dict[str, Callable[[], Callable[[], object]]]:
    found = {f"sweepvi, {backend}": lambda: ours(module, gradients, ranks)}
    if backend == "gloo":
        return {"DDP, gloo": lambda: ddp(module, gradients), **found}
    import pyro.optim.horovod as theirs

    from sweepvi.optim import HorovodOptimizer

    return {
        "Pyro's HorovodOptimizer": lambda: horovods(theirs.HorovodOptimizer, module, gradients),
        "sweepvi's HorovodOptimizer": lambda: horovods(HorovodOptimizer, module, gradients),
        **found,
    }


def started(backend: str, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by size and contender, from two processes of this script."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, __file__, "--work", backend, file.name, "--rounds", str(rounds)]
        if backend == "horovod":
            subprocess.run(
                [sys.executable, "-m", "horovod.runner.launch", "-np", "2", "--gloo", *command],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            both = [subprocess.Popen(command, env={**common, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
            if any([process.wait() for process in both]):  # noqa: C419  # both are to end
                raise SystemExit(1)
        return json.loads(Path(file.name).read_text(encoding="utf-8"))


def table(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """A line for each size and contender; ratios are to the first of the size, round by round."""
    lines = []
    for size, by_name in found.items():
        peer = next(iter(by_name.values()))
        for name, seconds in by_name.items():
            ratios = [own / other for own, other in zip(seconds, peer, strict=True) if other > 0]
            ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
            span = f"{min(ratios):.2f}–{max(ratios):.2f}" if ratios else "-"
            lines.append(f"| {int(size):,} | {name} | {1e3 * statistics.median(seconds):.3f} | {ratio} | {span} |")
    return lines


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", nargs=2, metavar=("BACKEND", "FILE"))
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.rounds, options.work[1])
        return
    print("| numbers | contender | median ms | time by the first's | range |\n|--:|---|--:|--:|--:|")
    for backend in ["gloo", *(["horovod"] if importlib.util.find_spec("horovod") else [])]:
        print("\n".join(table(started(backend, options.rounds))), flush=True)


if __name__ == "__main__":
    main()
