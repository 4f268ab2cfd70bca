"""Presets: all settings of a fit by rule, none by the user."""

from sweepvi.preset.rules import TUNED, Rung, rungs
from sweepvi.preset.running import Attempt, best_of

__all__ = ["TUNED", "Attempt", "Rung", "best_of", "rungs"]
