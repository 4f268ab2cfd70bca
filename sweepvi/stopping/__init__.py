"""When a fit is done, one file each."""

from sweepvi.stopping.auto import Auto
from sweepvi.stopping.steps import Steps
from sweepvi.stopping.stop import Stop
from sweepvi.stopping.watch import Asking, Request, Watch

__all__ = ["Asking", "Auto", "Request", "Steps", "Stop", "Watch"]
