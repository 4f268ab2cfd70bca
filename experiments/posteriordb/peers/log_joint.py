"""Log joints of the NumPyro models at given values of their sites, for the test that they are those of Pyro.

    python -m peers.log_joint FOLDER

The folder has ``garch11.data.npz``, the arguments of the model, and ``garch11.points.npz``, the values of each site at
several points; ``garch11.npy`` is written, the log joints. So for each of the posteriors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
from numpyro.infer.util import log_density  # pyright: ignore[reportMissingImports]

from peers.models import MODELS


def main(folder: Path) -> None:
    """Write the log joints of each posterior."""
    for posterior, model in MODELS.items():
        data, points = (_arrays(folder / f"{posterior}.{kind}.npz") for kind in ("data", "points"))
        log_joint = partial(_log_joint, model, data)
        np.save(folder / f"{posterior}.npy", jax.jit(jax.vmap(log_joint))(points))


def _log_joint(model: Callable[..., None], data: dict[str, jax.Array], at: dict[str, jax.Array]) -> jax.Array:
    return log_density(model, (), data, at)[0]


def _arrays(file: Path) -> dict[str, jax.Array]:
    with np.load(file) as arrays:
        return {name: jnp.asarray(array) for name, array in arrays.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
