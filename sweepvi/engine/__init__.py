"""The engine: runs a recipe."""

from sweepvi.engine.checkpoint import Checkpoint, Snapshot
from sweepvi.engine.loop import Outcome, fit, restored
from sweepvi.engine.observer import Observer
from sweepvi.engine.trial_run import trial_run

__all__ = ["Checkpoint", "Observer", "Outcome", "Snapshot", "fit", "restored", "trial_run"]
