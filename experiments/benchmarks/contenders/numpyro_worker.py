"""NumPyro as a worker, written by hand: ``jit(vmap(fori_loop))`` over fits. It runs in NumPyro's own environment."""

from __future__ import annotations

import time
from functools import cache, partial
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import optax  # pyright: ignore[reportMissingImports]
from numpyro.infer import SVI, Trace_ELBO  # pyright: ignore[reportMissingImports]
from numpyro.optim import optax_to_numpyro  # pyright: ignore[reportMissingImports]

from .numpyro_models import Program, program
from .service import serve


def steps(name: str, lanes: int, number: int, data: str) -> dict[str, Any]:
    """Wall-clock seconds of ``lanes`` fits of ``number`` steps, initial values included, compiling left out.

    Args:
        name: of the problem.
        lanes: fits, which differ by their seeds.
        number: steps of each; no constant of the program.
        data: file of the problem's arrays.

    """
    run, arguments = compiled(name, lanes, data)
    start = time.perf_counter()
    losses = run(number, *arguments).block_until_ready()
    return {"seconds": time.perf_counter() - start, "loss": float(jnp.median(losses))}


@cache
def compiled(name: str, lanes: int, data: str) -> tuple[Any, tuple[Any, ...]]:
    """The program for so many lanes, and what it takes after the number of steps."""
    keys = jax.random.split(jax.random.PRNGKey(0), lanes)
    arguments = (jax.random.PRNGKey(1), keys, jnp.full(lanes, 0.01), jnp.full(lanes, 10.0))
    fits = jax.vmap(partial(fit, program(name, data)), in_axes=(None, None, 0, 0, 0))
    return jax.jit(fits).lower(1, *arguments).compile(), arguments


def fit(made: Program, number: Any, data_key: Any, key: Any, rate: Any, clip: Any) -> Any:
    """One fit; its last loss. Everything that it takes is a tensor, so that lanes may differ in it."""
    optimizer = optax_to_numpyro(optax.chain(optax.clip(clip), optax.adam(rate)))
    svi = SVI(made.model, made.guide(), optimizer, Trace_ELBO())
    # All lanes share a step's minibatch: neither the key nor the step is a lane's own.
    batch = made.batch
    state = svi.init(key, *batch(data_key))
    loss = jnp.zeros((), jnp.result_type(float))

    def step(number: Any, carried: Any) -> Any:
        return svi.update(carried[0], *batch(jax.random.fold_in(data_key, number)))

    return jax.lax.fori_loop(0, number, step, (state, loss))[1]


if __name__ == "__main__":
    serve({"ready": dict, "steps": steps})
