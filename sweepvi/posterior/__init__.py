"""What fresh draws of a fitted guide say of the posterior: a table of every scalar, plain and importance-corrected."""

from sweepvi.posterior.moments import summarised
from sweepvi.posterior.table import COLUMNS, Posterior, Row, scalar_names

__all__ = ["COLUMNS", "Posterior", "Row", "scalar_names", "summarised"]
