"""Guides: the families of distributions that approximate the posterior, one file each."""

from sweepvi.guides.auto_delta import AutoDelta
from sweepvi.guides.auto_diagonal_normal import AutoDiagonalNormal
from sweepvi.guides.auto_iaf_normal import AutoIAFNormal
from sweepvi.guides.auto_low_rank_multivariate_normal import AutoLowRankMultivariateNormal
from sweepvi.guides.auto_multivariate_normal import AutoMultivariateNormal
from sweepvi.guides.auto_normal import AutoNormal
from sweepvi.guides.custom import CustomGuide
from sweepvi.guides.guide import Guide, Program
from sweepvi.guides.own import OwnGuide

__all__ = [
    "AutoDelta",
    "AutoDiagonalNormal",
    "AutoIAFNormal",
    "AutoLowRankMultivariateNormal",
    "AutoMultivariateNormal",
    "AutoNormal",
    "CustomGuide",
    "Guide",
    "OwnGuide",
    "Program",
]
