"""The problems in NumPyro: the same models, the same guides, the same sizes of networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np
import numpyro  # pyright: ignore[reportMissingImports]
import numpyro.distributions as dist  # pyright: ignore[reportMissingImports]
from numpyro.infer.autoguide import AutoNormal  # pyright: ignore[reportMissingImports]
from numpyro.infer.initialization import init_to_median  # pyright: ignore[reportMissingImports]

STATES = 3
BATCH = 128
LATENT = 8
HIDDEN = 128


@dataclass(frozen=True)
class Program:
    """A model, its guide, and the arguments of both at a step."""

    model: Callable[..., Any]
    guide: Callable[[], Any]
    """Makes a fresh one."""
    batch: Callable[[Any], tuple[Any, ...]]
    """Arguments from a random key; none unless there are minibatches."""


def program(name: str, arrays: dict[str, Any]) -> Program:
    """A problem by its name, with its data."""
    found = {key: np.asarray(array) for key, array in arrays.items()}
    kind = jnp.result_type(float)
    given = {key: jnp.asarray(array, kind if array.dtype.kind == "f" else int) for key, array in found.items()}
    if name == "digits_vae":
        return digits_vae(**given)
    model = MODELS[name](**given)
    return Program(model, lambda: AutoNormal(model, init_loc_fn=init_to_median, init_scale=0.1), lambda key: ())


def eight_schools(effect: Any, standard_error: Any) -> Callable[[], None]:
    """School effects as scaled standard normals."""

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("school", len(effect)):
            standardized = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(mu + tau * standardized, standard_error), obs=effect)

    return model


def radon(county: Any, floor: Any, log_radon: Any) -> Callable[[], None]:
    """County levels as scaled standard normals."""
    counties = int(county.max()) + 1

    def model() -> None:
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        beta = numpyro.sample("beta", dist.Normal(0.0, 10.0))
        sigma_county = numpyro.sample("sigma_county", dist.HalfNormal(1.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        with numpyro.plate("counties", counties):
            alpha = mu + sigma_county * numpyro.sample("alpha_trans", dist.Normal(0.0, 1.0))
        with numpyro.plate("houses", len(log_radon)):
            numpyro.sample("log_radon", dist.Normal(alpha[county] + beta * floor, sigma), obs=log_radon)

    return model


def regression(x: Any, y: Any) -> Callable[[], None]:
    """Linear regression."""

    def model() -> None:
        weights = numpyro.sample("weights", dist.Normal(jnp.zeros(x.shape[1]), 10.0).to_event(1))
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(x @ weights + intercept, sigma), obs=y)

    return model


def time_series(y: Any) -> Callable[[], None]:
    """Levels between which a hidden Markov chain switches; the states are summed out by the forward algorithm."""

    def model() -> None:
        transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones((STATES, STATES))).to_event(1))
        level = numpyro.sample("level", dist.Normal(jnp.zeros(STATES), 5.0).to_event(1))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
        switch = jnp.log(transition)
        seen = dist.Normal(level, sigma).log_prob(y[:, None])

        def forward(state: Any, here: Any) -> tuple[Any, None]:
            return jax.nn.logsumexp(state[:, None] + switch, axis=0) + here, None

        # Like Pyro's DiscreteHMM, the chain switches once before the first observation.
        start = jnp.full(STATES, -math.log(STATES), seen.dtype)
        state, _ = jax.lax.scan(forward, start, seen)
        numpyro.factor("y", jax.nn.logsumexp(state))

    return model


def digits_vae(images: Any) -> Program:
    """The variational autoencoder, with its guide and minibatches."""
    number, pixels = images.shape
    odds = (images.sum(0) + 0.5) / (number + 1)

    def decode(z: Any) -> Any:
        hidden = jnp.tanh(z @ weight("decoder.0", LATENT, HIDDEN) + bias("decoder.0", LATENT, HIDDEN))
        return hidden @ weight("decoder.1", HIDDEN, pixels)

    def encode(x: Any) -> tuple[Any, Any]:
        hidden = jnp.tanh(x @ weight("encoder.0", pixels, HIDDEN) + bias("encoder.0", pixels, HIDDEN))
        out = hidden @ weight("encoder.1", HIDDEN, 2 * LATENT) + bias("encoder.1", HIDDEN, 2 * LATENT)
        return out[:, :LATENT], out[:, LATENT:]

    def model(batch: Any) -> None:
        shared = numpyro.sample("bias", dist.Normal(jnp.zeros(pixels), 5.0).to_event(1))
        with numpyro.plate("digits", BATCH), numpyro.handlers.scale(scale=number / BATCH):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(LATENT), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z) + shared).to_event(1), obs=batch)

    def guide(batch: Any) -> None:
        loc = numpyro.param("bias_loc", jnp.log(odds) - jnp.log1p(-odds))
        scale = numpyro.param("bias_scale", jnp.full(pixels, 0.1), constraint=dist.constraints.positive)
        numpyro.sample("bias", dist.Normal(loc, scale).to_event(1))
        with numpyro.plate("digits", BATCH), numpyro.handlers.scale(scale=number / BATCH):
            center, log_sd = encode(batch)
            numpyro.sample("z", dist.Normal(center, jnp.exp(log_sd)).to_event(1))

    def batch(key: Any) -> tuple[Any, ...]:
        # The places of the largest of as many random numbers: without replacement, and faster than a permutation.
        return (images[jax.lax.top_k(jax.random.uniform(key, (number,)), BATCH)[1]],)

    return Program(model, lambda: guide, batch)


def weight(name: str, inputs: int, outputs: int) -> Any:
    """A layer's weights, initial values as torch's ``nn.Linear`` has them."""
    return numpyro.param(f"{name}.weight", _uniform(inputs, (inputs, outputs)))


def bias(name: str, inputs: int, outputs: int) -> Any:
    """A layer's bias, initial values as torch's ``nn.Linear`` has them."""
    return numpyro.param(f"{name}.bias", _uniform(inputs, (outputs,)))


def _uniform(inputs: int, shape: tuple[int, ...]) -> Callable[[Any], Any]:
    bound = 1 / math.sqrt(inputs)
    return lambda key: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


MODELS: dict[str, Callable[..., Callable[[], None]]] = {
    "eight_schools": eight_schools,
    "radon": radon,
    "regression": regression,
    "time_series": time_series,
}
