"""Minibatches that are handed in: their order has a seed of its own, and lanes share them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from sweepvi.engine.lanes.noise import Draw, NoiseLayout
from sweepvi.private import is_subsample


@dataclass(frozen=True)
class Minibatch:
    """A plate's choice of some of its entries."""

    plate: str
    size: int
    """Entries of the plate."""
    taken: int
    """Entries in the minibatch."""


class RecordedMinibatches(Messenger):
    """Inside, notes the choices that plates make, and makes them: the first entries of each plate."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: list[Minibatch] = []

    def _pyro_sample(self, msg: dict) -> None:
        choice = choice_of(msg)
        if choice is not None:
            self.choices.append(choice)
            msg["value"] = torch.arange(choice.taken, device=msg["fn"].device)


class GivenMinibatches(Messenger):
    """Inside, plates choose what a list says, in its order."""

    def __init__(self, rows: list[Tensor]) -> None:
        super().__init__()
        self._left = iter(rows)

    def _pyro_sample(self, msg: dict) -> None:
        if choice_of(msg) is not None:
            msg["value"] = next(self._left)


def choice_of(msg: dict) -> Minibatch | None:
    """What a plate is about to choose at random; None of all other messages."""
    if not is_subsample(msg) or msg["value"] is not None:
        return None
    size, taken = msg["fn"].size, msg["fn"].subsample_size
    return Minibatch(msg["name"], size, taken) if taken is not None and taken < size else None


def filled(choices: list[Minibatch], data_seed: int, steps: Tensor) -> list[Tensor]:
    """The entries that plates choose at some steps: a function of the seed, the step and the plate's turn in it.

    Entries of one minibatch are distinct; minibatches of different steps are independent, as those of Pyro's own
    plates are. So each gradient is unbiased given all steps before it, and there are no epochs: what has been seen
    does not leave the draw.

    Args:
        choices: of a step, in order.
        data_seed: at least 0.
        steps: int64, shape [T] where lanes are in step, [T, K] where each has its own.

    Returns:
        For each choice int64, shape [T, taken] or [T, K, taken].

    """
    layout = NoiseLayout([Draw("uniform", (choice.size,), torch.float64) for choice in choices])
    seeds = torch.tensor([data_seed], device=steps.device)
    noise = layout.filled(seeds, steps.flatten(), stream=1)
    # The order of the smallest of independent uniforms is that of a draw without replacement.
    return [
        noise[sort][:, 0, place].topk(choice.taken, largest=False).indices.unflatten(0, steps.shape)
        for choice, (sort, place) in zip(choices, layout.places, strict=True)
    ]
