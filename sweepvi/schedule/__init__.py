"""Learning-rate schedules as functions of the step, one file each."""

from sweepvi.schedule.constant import Constant
from sweepvi.schedule.exponential import Exponential
from sweepvi.schedule.schedule import Schedule

__all__ = ["Constant", "Exponential", "Schedule"]
