"""Baselines: what is subtracted from a draw's cost, so that its score meets a smaller number. One kind a file.

A baseline may depend on anything that is known before the draw; then the gradient's mean is what it was without.
"""

from sweepvi.estimators.baselines.average import BASELINE_STATE_PREFIX, OWN_PARAMETERS
from sweepvi.estimators.baselines.declaration import Baseline, Kind
from sweepvi.estimators.baselines.subtraction import Baselines

__all__ = ["BASELINE_STATE_PREFIX", "OWN_PARAMETERS", "Baseline", "Baselines", "Kind"]
