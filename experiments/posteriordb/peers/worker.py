"""One fit of a peer's, in a process of its own.

    python -m peers.worker numpyro garch11 0 data.npz reply.npz

The data are the arguments of the posterior's model. The reply has the draws, ``log_weights`` of draws of the
approximation, ``seconds``, ``evaluations``, and a ``note``.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np

from peers.models import MODELS
from peers.target import target

PEERS = {
    "advi": ("advi", "fit"),
    "dadvi": ("dadvi", "fit"),
    "numpyro": ("svi", "mean_field"),
    "numpyro_full_rank": ("svi", "full_rank"),
    "pathfinder": ("pathfinder", "fit"),
    "viabel": ("viabel_faso", "fit"),
}
"""Peer → its module and function."""


def main(peer: str, posterior: str, seed: str, data: str, reply: str) -> None:
    """Fit, and write the reply; the seconds are of everything but imports."""
    module, name = PEERS[peer]
    fit = getattr(import_module(f"peers.{module}"), name)
    with np.load(data) as arrays:
        given = {key: jnp.asarray(array) for key, array in arrays.items()}
    begun = time.perf_counter()
    posed = target(MODELS[posterior], given, int(seed))
    found = fit(posed, int(seed))
    sites = jax.block_until_ready(jax.jit(jax.vmap(posed.sites))(found.z))
    seconds = time.perf_counter() - begun
    told = {"log_weights": found.log_weights, "evaluations": found.evaluations, "note": found.note}
    draws = {f"site {name}": np.asarray(values) for name, values in sites.items()}
    np.savez(reply, seconds=seconds, **told, **draws)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main(*sys.argv[1:])
