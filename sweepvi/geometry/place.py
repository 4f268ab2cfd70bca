"""The coordinates in which a model is fitted."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.coordinates import Coordinates
from sweepvi.geometry.geometry import Mode
from sweepvi.geometry.whitened import whitened
from sweepvi.guides.guide import Program


@dataclass(frozen=True)
class Place:
    """The coordinates in which a model is fitted."""

    coordinates: Coordinates
    affine: AffineMap
    """float64, on the CPU."""
    modes: tuple[Mode, ...]
    notes: tuple[str, ...]
    evaluations: int
    """Gradients that it took to find."""

    def put(self, model: Program, dtype: torch.dtype, device: torch.device) -> Program:
        """The model in these coordinates."""
        return whitened(model, self.coordinates, copy.deepcopy(self.affine).to(device, dtype))
