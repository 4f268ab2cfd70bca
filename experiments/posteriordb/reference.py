"""Reference draws of posteriordb, and a fit's draws under the same names.

Scalars are named as in Stan, indices from 1: ``mu``, ``theta[1]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from sweepvi.models.posteriordb.component import POSTERIORS
from sweepvi.models.posteriordb.folder import CHECKOUT, is_checkout, read_json


@dataclass(frozen=True)
class Reference:
    """Mean and standard deviation of every scalar, by name."""

    mean: dict[str, float]
    sd: dict[str, float]


def reference_draws(folder: Path, posterior: str) -> dict[str, np.ndarray]:
    """Reference draws by scalar, each of shape [chains, draws].

    Args:
        folder: of posteriordb, in either layout that ``model=posteriordb`` reads.
        posterior: short name.

    Raises:
        OSError: if they are not there.

    """
    name = POSTERIORS[posterior].name
    if not is_checkout(folder):
        with np.load(folder / name / "draws.npz") as draws:
            return dict(draws)
    chains = read_json(folder / CHECKOUT / "reference_posteriors" / "draws" / "draws" / f"{name}.json.zip")
    return {scalar: np.array([chain[scalar] for chain in chains]) for scalar in chains[0]}


def reference(folder: Path, posterior: str) -> Reference:
    """Means and standard deviations over all chains; arguments as of :func:`reference_draws`."""
    draws = reference_draws(folder, posterior)
    return Reference(
        {name: float(values.mean()) for name, values in draws.items()},
        {name: float(values.std(ddof=1)) for name, values in draws.items()},
    )


def scalars(draws: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Draws by scalar, each of shape [n], of draws by site, each of shape [n, ...]."""
    found = {}
    for site, values in draws.items():
        for index in product(*map(range, values.shape[1:])):
            name = f"{site}[{','.join(str(place + 1) for place in index)}]" if index else site
            found[name] = values[(slice(None), *index)].detach().cpu().double().numpy()
    return found
