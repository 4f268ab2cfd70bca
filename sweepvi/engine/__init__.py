"""The engine: runs a recipe."""

from sweepvi.engine.checkpoint import Checkpoint, Snapshot
from sweepvi.engine.facts import Facts, facts_of
from sweepvi.engine.loop import fit, fit_many, restored
from sweepvi.engine.observer import Observer
from sweepvi.engine.outcome import Outcome
from sweepvi.engine.rank_engine import demand_as_many
from sweepvi.engine.trial_run import trial_run

__all__ = [
    "Checkpoint",
    "Facts",
    "Observer",
    "Outcome",
    "Snapshot",
    "demand_as_many",
    "facts_of",
    "fit",
    "fit_many",
    "restored",
    "trial_run",
]
