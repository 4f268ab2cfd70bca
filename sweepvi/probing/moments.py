"""Means and variances of gradients, draw by draw: no gradient is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sweepvi.probing.row import Noise


class Moments:
    """Welford's algorithm, in float64, for each parameter: "Note on a Method for Calculating Corrected Sums of Squares
    and Products", 1962.

    A parameter that appears late has had a gradient of zero before.
    """

    def __init__(self) -> None:
        self._draws = 0
        self._means: dict[str, Tensor] = {}
        self._increments: dict[str, list[float]] = {}

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Take a draw in: gradients by parameter; a parameter that is missing has none this time."""
        for name in gradients.keys() - self._means.keys():
            self._means[name] = torch.zeros_like(gradients[name], dtype=torch.float64)
            self._increments[name] = [0.0] * self._draws
        self._draws += 1
        for name, mean in self._means.items():
            gradient = gradients[name].double() if name in gradients else torch.zeros_like(mean)
            away = gradient - mean
            mean += away / self._draws
            self._increments[name].append(float((away * (gradient - mean)).sum()))

    def mean(self) -> dict[str, Tensor]:
        """Mean gradient by parameter, sorted by name: float64, of its shape, on the CPU."""
        return {name: self._means[name].cpu() for name in sorted(self._means)}

    def total(self) -> Noise:
        """Of the whole gradient."""
        return _noise([sum(each) for each in zip(*self._increments.values(), strict=True)], list(self._means.values()))

    def tensors(self) -> dict[str, Noise]:
        """Of each parameter's part, sorted by name."""
        return {name: _noise(self._increments[name], [self._means[name]]) for name in sorted(self._means)}


def _noise(increments: list[float], means: list[Tensor]) -> Noise:
    """From what each draw adds to the sum of squares, whose expectation is the variance from the second draw on."""
    draws, later = len(increments), torch.tensor(increments[1:], dtype=torch.float64)
    variance = max(float(later.mean()), 0.0)
    norm2 = sum(float(mean.square().sum()) for mean in means)
    return Noise(
        size=sum(mean.numel() for mean in means),
        mean_norm=math.sqrt(max(norm2 - variance / draws, 0.0)),
        standard_error=math.sqrt(variance / draws),
        variance=variance,
        variance_se=float(later.std()) / math.sqrt(len(later)) if len(later) > 1 else None,
    )
