"""Presets: all settings of a fit by rule, none by the user."""

from sweepvi.preset.rules import TUNED, TUNED_ENGINE, Rung, rungs
from sweepvi.preset.running import best_of

__all__ = ["TUNED", "TUNED_ENGINE", "Rung", "best_of", "rungs"]
