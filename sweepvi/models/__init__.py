"""Shipped problems, one file each, and the user's own."""

from sweepvi.models.custom import CustomModel
from sweepvi.models.digits_sbn import DigitsSBN
from sweepvi.models.digits_vae import DigitsVAE
from sweepvi.models.eight_schools import EightSchools
from sweepvi.models.radon import Radon
from sweepvi.models.uk_drivers import UKDrivers

__all__ = ["CustomModel", "DigitsSBN", "DigitsVAE", "EightSchools", "Radon", "UKDrivers"]
