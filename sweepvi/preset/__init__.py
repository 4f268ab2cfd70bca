"""Presets: all settings of a fit by rule, none by the user."""

from sweepvi.preset.rules import TUNED_ENGINE, Rung, rungs
from sweepvi.preset.running import best_of

__all__ = ["TUNED_ENGINE", "Rung", "best_of", "rungs"]
