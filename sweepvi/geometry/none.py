"""The model's own unconstrained coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sweepvi.geometry.affine import AffineMap
from sweepvi.geometry.geometry import Geometry, Located
from sweepvi.geometry.log_joint import LogJoint


@dataclass(frozen=True)
class NoGeometry(Geometry):
    """The model as it is: guides see its own variables."""

    def locate(self, log_joint: LogJoint) -> Located:
        """The identity; nobody needs to ask."""
        return Located(AffineMap(torch.zeros(log_joint.size), torch.ones(log_joint.size)))
