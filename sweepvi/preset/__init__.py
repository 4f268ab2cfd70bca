"""Presets: all settings of a fit by name, or by rule."""

from sweepvi.preset.best import best_of
from sweepvi.preset.ladder import Ladder, climb, ladder, unfinished
from sweepvi.preset.portfolio import PORTFOLIO
from sweepvi.preset.rules import Rung, rungs, suited
from sweepvi.preset.said import said, under, untuned

__all__ = [
    "PORTFOLIO",
    "Ladder",
    "Rung",
    "best_of",
    "climb",
    "ladder",
    "rungs",
    "said",
    "suited",
    "under",
    "unfinished",
    "untuned",
]
