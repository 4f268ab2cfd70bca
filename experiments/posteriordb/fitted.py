"""What a contender hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

DRAWS = 10_000
"""Draws of a fit, by which it is judged."""


@dataclass(frozen=True)
class Fitted:
    """A fit's draws, and what it cost."""

    draws: dict[str, Tensor]
    """By site, each of shape [DRAWS, ...]; empty if the fit failed."""
    k_hat: float | None
    seconds: float | None
    """Of the fit, without the draws by which it is judged."""
    evaluations: int | None
    """Gradients of the log joint, counted by draw."""
    weighted: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Mean and standard deviation by scalar, of draws weighted by PSIS; empty if there are none."""
    note: str = ""
    """The verdict, or what went wrong."""
