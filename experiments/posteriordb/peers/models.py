"""The ten posteriors as NumPyro models: the sites, priors and arguments of the Pyro models in sweepvi.

What each of them means is said there, in ``sweepvi/models/posteriordb``. Here, time series are plain scans over time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpyro  # pyright: ignore[reportMissingImports]
import numpyro.distributions as dist  # pyright: ignore[reportMissingImports]
from numpyro.distributions import constraints  # pyright: ignore[reportMissingImports]

from peers.populations import populations


def ar_k(past: Any, y: Any) -> None:
    """A value is normal around a linear function of those before it."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(past.shape[1]), 10.0).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    with numpyro.plate("times", len(y)):
        numpyro.sample("y", dist.Normal(alpha + past @ beta, sigma), obs=y)


def eight_schools_noncentered(y: Any, sigma: Any) -> None:
    """School effects as scaled standard normals."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(y)):
        standardized = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * standardized)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def garch11(y: Any, sigma1: Any) -> None:
    """A series whose variance follows its own past."""
    mu = numpyro.sample("mu", _flat(constraints.real))
    alpha0 = numpyro.sample("alpha0", _flat(constraints.positive))
    alpha1 = numpyro.sample("alpha1", dist.Beta(1.0, 2.0))
    share = numpyro.sample("beta1_share", dist.Uniform(0.0, 1.0))
    beta1 = numpyro.deterministic("beta1", (1 - alpha1) * share)

    def forward(variance: Any, before: Any) -> tuple[Any, Any]:
        variance = alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variance
        return variance, variance

    _, later = jax.lax.scan(forward, sigma1**2, y[:-1])
    variances = jnp.concatenate([sigma1[None] ** 2, later])
    numpyro.sample("y", dist.Normal(mu, jnp.sqrt(variances)).to_event(1), obs=y)


def gp_pois_regr(x: Any, k: Any) -> None:
    """Counts along a line, whose log rate is a Gaussian process."""
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    f_tilde = numpyro.sample("f_tilde", dist.Normal(jnp.zeros(len(x)), 1.0).to_event(1))
    covariance = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + 1e-10 * jnp.eye(len(x))
    f = numpyro.deterministic("f", jnp.linalg.cholesky(covariance) @ f_tilde)
    numpyro.sample("k", dist.Poisson(jnp.exp(f)).to_event(1), obs=k)


def hmm_example(y: Any) -> None:
    """Two hidden states, summed out by the forward algorithm; the first has no probability of its own."""
    flat = dist.Dirichlet(jnp.ones(2))
    switch = jnp.log(jnp.stack([numpyro.sample("theta1", flat), numpyro.sample("theta2", flat)]))
    mu = numpyro.sample("mu", _flat(constraints.positive_ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    seen = dist.Normal(mu, 1.0).log_prob(y[:, None])

    def forward(state: Any, here: Any) -> tuple[Any, None]:
        return jax.nn.logsumexp(state[:, None] + switch, axis=0) + here, None

    state, _ = jax.lax.scan(forward, seen[0], seen[1:])
    numpyro.factor("y", jax.nn.logsumexp(state))


def kidscore_interaction(x: Any, kid_score: Any) -> None:
    """Test scores by a linear regression."""
    beta = numpyro.sample("beta", _flat(constraints.real_vector, x.shape[1]))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    with numpyro.plate("children", len(kid_score)):
        numpyro.sample("kid_score", dist.Normal(x @ beta, sigma), obs=kid_score)


def kilpisjarvi(x: Any, y: Any, pmualpha: Any, psalpha: Any, pmubeta: Any, psbeta: Any) -> None:
    """Temperatures around a line, by year."""
    alpha = numpyro.sample("alpha", dist.Normal(pmualpha, psalpha))
    beta = numpyro.sample("beta", dist.Normal(pmubeta, psbeta))
    sigma = numpyro.sample("sigma", _flat(constraints.positive))
    with numpyro.plate("years", len(y)):
        numpyro.sample("y", dist.Normal(alpha + beta * x, sigma), obs=y)


def lotka_volterra(y_init: Any, y: Any, waits: Any) -> None:
    """Pelts are log-normal around the populations."""
    theta = numpyro.sample("theta", _flat(constraints.independent(constraints.positive, 1), 4))
    prior = dist.Normal(jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]))
    numpyro.factor("theta_prior", prior.log_prob(theta).sum())
    sigma = numpyro.sample("sigma", dist.LogNormal(jnp.full(2, -1.0), 1.0).to_event(1))
    z_init = numpyro.sample("z_init", dist.LogNormal(jnp.full(2, jnp.log(10.0)), 1.0).to_event(1))
    log_z = populations(theta, jnp.log(z_init), waits)
    numpyro.sample("y_init", dist.LogNormal(jnp.log(z_init), sigma).to_event(1), obs=y_init)
    numpyro.sample("y", dist.LogNormal(log_z, sigma).to_event(2), obs=y)


def low_dim_gauss_mix(y: Any) -> None:
    """A mixture of two normals."""
    mu = numpyro.sample("mu", _flat(constraints.ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(jnp.full(2, 2.0)).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = dist.Categorical(probs=jnp.stack([theta, 1 - theta]))
    with numpyro.plate("values", len(y)):
        numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=y)


def nes(x: Any, partyid7: Any) -> None:
    """Party identification by a linear regression."""
    beta = numpyro.sample("beta", _flat(constraints.real_vector, x.shape[1]))
    sigma = numpyro.sample("sigma", _flat(constraints.positive))
    with numpyro.plate("people", len(partyid7)):
        numpyro.sample("partyid7", dist.Normal(x @ beta, sigma), obs=partyid7)


def _flat(support: Any, *shape: int) -> Any:
    return dist.ImproperUniform(support, (), shape)


MODELS: dict[str, Callable[..., None]] = {
    "arK": ar_k,
    "eight_schools_noncentered": eight_schools_noncentered,
    "garch11": garch11,
    "gp_pois_regr": gp_pois_regr,
    "hmm_example": hmm_example,
    "kidscore_interaction": kidscore_interaction,
    "kilpisjarvi": kilpisjarvi,
    "lotka_volterra": lotka_volterra,
    "low_dim_gauss_mix": low_dim_gauss_mix,
    "nes": nes,
}
"""Posterior, by its short name → model."""
