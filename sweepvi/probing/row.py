"""What is measured of one estimator with one number of particles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sweepvi.probing.candidates import words_of

OK = "ok"


@dataclass(frozen=True)
class Noise:
    """Size and noise of a gradient vector, in nats per unit of the unconstrained parameters."""

    size: int
    """Entries of the vector."""
    mean_norm: float
    """Norm of the mean, corrected for its noise: root of (norm² of the draws' mean − variance / draws), at least 0."""
    standard_error: float
    """Root mean square distance of the draws' mean from the true mean: root of (variance / draws)."""
    variance: float
    """Variance of one gradient, summed over the entries: the trace of its covariance."""
    variance_se: float | None
    """Standard error of ``variance``; None for two draws."""

    @property
    def snr(self) -> float | None:
        """Signal-to-noise ratio of one gradient: ``mean_norm`` over the root of the variance; None if both are 0.

        Rainforth et al., "Tighter Variational Bounds are Not Necessarily Better", 2018, section 3, for a vector.
        """
        if self.variance > 0:
            return self.mean_norm / self.variance**0.5
        return float("inf") if self.mean_norm > 0 else None


@dataclass(frozen=True)
class Disagreement:
    """How far a row's mean gradient is from that of the most precise unbiased row."""

    standard_errors: float
    """Norm of the difference over its standard error, in the parameter where that is largest."""
    parameter: str
    """That parameter."""
    reference: str
    """The row compared with, in words."""
    significant: bool
    """Whether chance is a poor explanation."""


@dataclass(frozen=True)
class Row:
    """One estimator with one number of particles."""

    estimator: str
    """Its name, with what is set differently from its defaults."""
    particles: int
    node: Mapping[str, Any]
    """The estimator's complete configuration, as plain data."""
    objective: str
    """What it is the gradient of."""
    unbiased: bool
    """Whether the estimator says that its mean is that gradient."""
    status: str
    """``ok``; or why there are no numbers: how many gradients were not finite, or the exception."""
    nonfinite: int = 0
    """Gradients that were NaN or infinite, or could not be computed for numerical reasons."""
    total: Noise | None = None
    """Of the whole gradient; None unless ``ok``."""
    tensors: Mapping[str, Noise] = field(default_factory=dict)
    """Of its part for each parameter, by name."""
    seconds: float | None = None
    """Median wall-clock time of one gradient, as a fit computes it; the optimizer's update is not counted."""
    disagreement: Disagreement | None = None
    """None for the row that others are compared with, and where there is none."""
    mean: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    """Mean gradient by parameter, in unconstrained coordinates: float64, of the parameter's shape, on the CPU."""

    @property
    def cost(self) -> float | None:
        """Variance × seconds: what one second of gradients leaves of variance when it is spent on averaging them."""
        if self.total is None or self.seconds is None:
            return None
        return self.total.variance * self.seconds

    @property
    def words(self) -> str:
        """The row in words: ``trace with 10 particles``."""
        return words_of(self.estimator, self.particles)
