"""Fits that come and go: what a sweep's worker drives, whichever engine computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.score import SCORE_SEED
from sweepvi.recipe import Recipe

RungValue: TypeAlias = Literal["smoothed", "fixed"]
"""What a fit is judged by before its end: the mean loss of its steps since half of them, or its ELBO on draws that are
the same for all fits. The first costs nothing, and compares fits under one estimator only."""


@dataclass(frozen=True)
class Task:
    """One fit."""

    key: int
    """By which events are told apart."""
    recipe: Recipe
    rungs: tuple[int, ...] = ()
    """Steps after which a value is wanted, increasing, before the last."""
    score_draws: int | None = None
    """Fresh draws on which the finished fit is scored; None is what its recipe says."""
    score_seed: int = SCORE_SEED
    """Of these draws, equal for fits that are to be compared."""
    heldout: bool = False
    """Whether its predictions of held-out data are wanted."""
    kept: bool = False
    """Whether all of its result is wanted, and not its scores alone."""


@dataclass(frozen=True)
class Reached:
    """A fit has reached a rung."""

    key: int
    rung: int
    step: int
    value: float
    """An estimate of the ELBO in nats, higher is better; NaN if it is not known."""
    seconds: float
    """Its share of the time that steps took so far."""


@dataclass(frozen=True)
class Kept:
    """What a fit has found, beside its scores."""

    params: dict[str, Tensor]
    """By name, constrained, on the CPU."""
    rates: dict[str, Tensor]
    """Effective step size at each step, by group of parameters: float64, [steps] each."""
    skipped: list[int]
    """Steps left out, from 1."""
    data_size: int | None


@dataclass(frozen=True)
class Ended:
    """A fit is over."""

    key: int
    status: Literal["finished", "diverged"]
    message: str
    steps: int
    losses: Tensor
    """float64, shape [steps]."""
    log_weights: Tensor
    """Of fresh draws, float64; empty unless the fit is finished."""
    seconds: float
    """Its share of the time that steps took."""
    engine: str
    notes: list[str] = field(default_factory=list)
    heldout: Tensor | None = None
    """Log p(held-out data | draw) of as many draws, float64."""
    kept: Kept | None = None


@dataclass(frozen=True)
class Failed:
    """A fit could not be run; the message is that of the model, or of what it needs."""

    key: int
    message: str


@dataclass(frozen=True)
class Refused:
    """A fit cannot be a lane of this program, and why; elsewhere, it may run."""

    key: int
    reason: str


Event: TypeAlias = Reached | Ended | Failed | Refused


class Trials(ABC):
    """Fits of one program in progress."""

    @property
    @abstractmethod
    def running(self) -> list[int]:
        """Keys of the fits in progress."""

    @property
    @abstractmethod
    def free(self) -> int:
        """How many fits may :meth:`enter` now."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many fits there can be at a time."""

    @abstractmethod
    def enter(self, tasks: Sequence[Task]) -> list[Event]:
        """Begin fits, as many as are free; those that cannot run have failed, and no other notices."""

    @abstractmethod
    def drop(self, keys: Iterable[int]) -> None:
        """End fits without a result."""

    @abstractmethod
    def advance(self) -> list[Event]:
        """Take some steps; what has happened in them."""

    @abstractmethod
    def occupancy(self) -> tuple[float, float]:
        """Steps of fits, and steps that there was room for, since this was last asked."""

    @abstractmethod
    def no_more(self) -> None:
        """No fit will enter in a while: room that is free may be given up."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what runs in the background."""


def smoothed(losses: Tensor) -> float:
    """An estimate of the ELBO from the losses of a fit's steps, shape [steps]: minus the mean of their second half."""
    late = losses[len(losses) // 2 :]
    return -float(late[late.isfinite()].mean()) if bool(late.isfinite().any()) else float("nan")


def draws_of_rung(log_weights: Tensor) -> float:
    """The ELBO by some draws, shape [draws]; NaN if one is not finite."""
    return float(log_weights.mean()) if len(log_weights) and bool(torch.isfinite(log_weights).all()) else float("nan")
