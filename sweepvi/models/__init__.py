"""Shipped problems, one file each, and the user's own."""

from sweepvi.models.custom import CustomModel
from sweepvi.models.eight_schools import EightSchools
from sweepvi.models.radon import Radon

__all__ = ["CustomModel", "EightSchools", "Radon"]
