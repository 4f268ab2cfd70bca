"""Fits of a given length."""

from __future__ import annotations

from dataclasses import dataclass

from sweepvi.stopping.stop import Stop


@dataclass(frozen=True)
class Steps(Stop):
    """After `engine.steps` steps; the result is where the optimizer stands then."""

    def watch(self, size: int) -> None:
        """Nothing needs to watch."""
        del size
