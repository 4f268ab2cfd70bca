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
    """The entries that plates choose at some steps (int64, shape [T]): for each choice int64, shape [T, taken]."""
    layout = NoiseLayout([Draw("uniform", (choice.size,), torch.float64) for choice in choices])
    seeds = torch.tensor([data_seed], device=steps.device)
    noise = {sort: rows[:, 0] for sort, rows in layout.filled(seeds, steps, stream=1).items()}
    return [
        noise[sort][:, place].argsort(-1)[:, : choice.taken]
        for choice, (sort, place) in zip(choices, layout.places, strict=True)
    ]
