"""What the controller and its workers say to each other.

A worker speaks once a turn, and waits for the answer: so the controller always knows what each worker has, and nothing
is lost between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Setup:
    """What a worker must know before its first fit."""

    given: bytes | None
    """Pickled ``{group: object}`` of a call from Python; None where names say everything."""
    threads: int
    """Of torch."""
    rung_value: str
    """See :data:`sweepvi.engine.trials.RungValue`."""
    rung_draws: int
    path: list[str]
    """``sys.path``."""
    memory: float | None
    """GiB that it may take."""
    objectives: tuple[str, ...] = ("elbo",)
    """What is wanted of each fit."""
    target: float | None = None
    """ELBO of which the time is asked, nats."""


@dataclass(frozen=True)
class Order:
    """A fit to be run."""

    key: int
    program: str
    """Equal for fits that may be lanes of one program."""
    config: Mapping[str, Any]
    rungs: tuple[int, ...]
    score_draws: int | None = None
    score_seed: int | None = None
    folder: str | None = None
    """Where the fit is to be saved as a run folder; None saves nothing."""


@dataclass(frozen=True)
class Answer:
    """What a worker is to do next."""

    orders: list[Order] = field(default_factory=list)
    drop: list[int] = field(default_factory=list)
    """Fits that are not wanted any more."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lanes of programs that are to be begun."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Steps of all fits that a program will ever run, about."""
    last: bool = False
    """Nothing more will be ordered."""


@dataclass(frozen=True)
class AtRung:
    """See :class:`sweepvi.engine.trials.Reached`."""

    key: int
    rung: int
    step: int
    value: float
    seconds: float


@dataclass(frozen=True)
class Done:
    """A fit is over."""

    key: int
    status: str
    message: str
    steps: int
    seconds: float
    elbo: float | None
    """In nats; None unless it is finished and all draws are finite."""
    elbo_se: float | None
    curve: list[tuple[int, float]]
    """Losses, each the mean up to a step since the one before."""
    engine: str
    k_hat: float | None = None
    target_seconds: float | None = None
    """Seconds until the loss has come to the target, or all where there is none; None if it never has."""
    heldout: float | None = None
    """Log predictive density of held-out data, nats."""
    heldout_se: float | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lost:
    """A fit could not be run, or has taken others down with it."""

    key: int
    message: str
    alone: bool
    """Whether it is at fault for sure."""


@dataclass(frozen=True)
class Turn:
    """What has happened since the last one."""

    events: list[AtRung | Done | Lost] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    """Fits that are in a lane."""
    free: Mapping[str, int] = field(default_factory=dict)
    """Lanes to spare of each open program."""
    busy: float = 0.0
    """Steps of fits."""
    room: float = 0.0
    """Steps that there was room for."""
    seconds: float = 0.0
    """Since the last turn."""
    computing: float = 0.0
    """Of these, in steps and scores."""
    damaged: bool = False
    """Whether the process should be replaced."""
