"""Learning-rate schedules as functions of the step, one file each."""

from sweepvi.schedule.chain import Chain
from sweepvi.schedule.constant import Constant
from sweepvi.schedule.cosine import Cosine
from sweepvi.schedule.cosine_restarts import CosineRestarts
from sweepvi.schedule.cyclic import Cyclic
from sweepvi.schedule.exponential import Exponential
from sweepvi.schedule.inverse_time import InverseTime
from sweepvi.schedule.linear import Linear
from sweepvi.schedule.multistep import MultiStep
from sweepvi.schedule.one_cycle import OneCycle
from sweepvi.schedule.piecewise import Piecewise
from sweepvi.schedule.plateau import Plateau
from sweepvi.schedule.polynomial import Polynomial
from sweepvi.schedule.product import Product
from sweepvi.schedule.schedule import Schedule
from sweepvi.schedule.sequential import Sequential
from sweepvi.schedule.step import Step
from sweepvi.schedule.warmup import Warmup

__all__ = [
    "Chain",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseTime",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Piecewise",
    "Plateau",
    "Polynomial",
    "Product",
    "Schedule",
    "Sequential",
    "Step",
    "Warmup",
]
