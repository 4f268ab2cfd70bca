"""Who watches a fit: the engine tells, and knows nothing of terminals."""

from __future__ import annotations


class Observer:
    """Hears of a fit's progress; this one does nothing. Subclass and override what is wanted."""

    def started(self, done: int, total: int) -> None:
        """The loop starts: ``done`` of ``total`` steps are there already, from a checkpoint."""

    def stepped(self, step: int, loss: float) -> None:
        """Step ``step`` (from 1) has been taken; ``loss`` is its estimate of -ELBO."""

    def scoring(self, done: int, total: int) -> None:
        """``done`` of ``total`` fresh draws of the finished fit are evaluated."""

    def ended(self, status: str) -> None:
        """The loop has ended, however it did; called once, also before an exception leaves it."""
