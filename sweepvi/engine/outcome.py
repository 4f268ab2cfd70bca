"""What a fit computed, and the record of its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.fresh_draws import FreshDraws
from sweepvi.problem import Problem
from sweepvi.programs import Fitted

Status: TypeAlias = Literal["finished", "diverged", "interrupted"]


@dataclass(frozen=True)
class Restart:
    """One of the fits from which the best was chosen."""

    seed: int
    status: Status
    message: str
    log_weights: Tensor
    """log p - log q of fresh draws at the end, float64; empty unless the fit finished."""


@dataclass(frozen=True)
class ModeCoverage:
    """How much of the guide is at a maximum of the posterior's density, in unconstrained coordinates."""

    log_evidence: float
    """Laplace's approximation of the mass around it: of log p(data), were there no other."""
    log_q: float
    """Log density of the guide at it, in the same coordinates."""


@dataclass
class Outcome:
    """What a fit computed."""

    status: Status
    steps: int
    """Steps taken, those left out under ``on_nonfinite=skip`` among them."""
    message: str
    """Why the fit ended, when it did not finish."""
    losses: Tensor
    """Estimate of -ELBO at each step, float64; one more than ``steps`` if the last one diverged."""
    rates: dict[str, Tensor]
    """Effective step size at each step, float64, by label of the parameter group."""
    skipped: list[int]
    """Steps left out, from 1."""
    log_weights: Tensor
    """log p - log q of fresh draws at the end, float64; empty unless the fit finished."""
    seconds: float
    """Time spent on steps, over all resumptions; scoring not counted."""
    problem: Problem
    """The model with its data as it ran: cast, and on the device."""
    fitted: Fitted
    """The model and the guide, ready to run."""
    snapshot: Snapshot
    """All that a continuation needs."""
    seed: int
    """Of the fit that this is of: with restarts, that of the best."""
    engine: str = "eager"
    stopped: str = ""
    """Why the fit was done when it ended, if it was watched."""
    compiled_from: int | None = None
    """The step from which machine code was used, or would have been next; None if steps were not to be compiled."""
    data_size: int | None = None
    """Entries of observed sites, with those outside of minibatches; None unless the fit finished."""
    score_note: str = ""
    """What a reader of the score must know."""
    notes: list[str] = field(default_factory=list)
    """What else a reader must know."""
    fresh: FreshDraws | None = None
    """What draws at the end show of the posterior; None unless the fit finished."""
    modes: list[ModeCoverage] | None = None
    """Where the posterior's density has maxima; None if nobody looked."""
    restarts: list[Restart] = field(default_factory=list)
    """All the fits from which this was chosen, itself among them; empty if there were no others."""
    frozen: dict[str, Any] = field(default_factory=dict)
    """Of a fit by a minimizer: see :attr:`sweepvi.results.FitResult.frozen`; else empty."""
    world_size: int = 1
    """Processes that the fit ran on."""
    ranks_agree: bool | None = None
    """Whether all of them have ended with equal bits; None if there was one, or nobody could ask."""
    spread: dict[str, Tensor] = field(default_factory=dict)
    """R-hat of every parameter over the restarts, by name; empty if there were none to compare."""


@dataclass
class Ledger:
    """What is recorded a step."""

    losses: list[float] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def into(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot with the ledger as a part."""
        rates = {f"rates/{label}": float64(values) for label, values in self.rates.items()}
        meta = {"skipped": self.skipped, "seconds": self.seconds}
        snapshot.put("ledger", {"losses": float64(self.losses), **rates}, meta)
        return snapshot

    def add(self, loss: float, rates: Mapping[str, float]) -> None:
        """Record a step; a group of parameters that appears late has had no step size before."""
        for label in rates:
            self.rates.setdefault(label, [math.nan] * len(self.losses))
        for label, values in self.rates.items():
            values.append(rates.get(label, math.nan))
        self.losses.append(loss)

    def of_steps(self, steps: int) -> Ledger:
        """The ledger without the row of a step that diverged: a continuation takes that step anew."""
        rates = {label: values[:steps] for label, values in self.rates.items()}
        return Ledger(self.losses[:steps], rates, self.skipped, self.seconds)

    @classmethod
    def of(cls, snapshot: Snapshot) -> Ledger:
        """The ledger that a snapshot has."""
        tensors, meta = snapshot.get("ledger")
        rates = {k.removeprefix("rates/"): v.tolist() for k, v in tensors.items() if k.startswith("rates/")}
        return cls(tensors["losses"].tolist(), rates, meta["skipped"], meta["seconds"])


def float64(values: list[float]) -> Tensor:
    """Numbers as a tensor."""
    return torch.tensor(values, dtype=torch.float64, device="cpu")
