"""Posteriors to fit: seven of posteriordb, as Pyro models with the priors of its Stan programs, and two shipped ones.

A folder of posteriordb's has a ``data.json`` and a ``reference.json`` with ``{"parameters": {name: {"mean", "sd"}}}``,
scalars named as in Stan: ``beta[1]``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import transform_to

from sweepvi.loading import loader
from sweepvi.models.eight_schools import EightSchools
from sweepvi.models.radon import Radon

Data: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Posterior:
    """A model with its data, and the means and deviations of some of its sites, if they are known."""

    name: str
    model: Callable[[], Any]
    reference: dict[str, tuple[float, float]] = field(default_factory=dict)


class Flat(dist.ImproperUniform):
    """A density of one on the whole support. Its only draw, which Pyro's initialisations ask for, is the origin."""

    def __init__(self, support: Any = constraints.real, size: int | None = None) -> None:
        super().__init__(support, torch.Size(), torch.Size(() if size is None else (size,)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return transform_to(self.support)(torch.zeros(tuple(sample_shape) + tuple(self.event_shape)))


def flat(name: str, support: Any = constraints.real, size: int | None = None) -> Tensor:
    return pyro.sample(name, Flat(support, size))


def observe(distribution: Any, value: Tensor) -> None:
    pyro.sample("obs", distribution.to_event(1), obs=value)


def eight_schools_noncentered(data: Data) -> None:
    mu, tau = pyro.sample("mu", dist.Normal(0.0, 5.0)), pyro.sample("tau", dist.HalfCauchy(5.0))
    theta_trans = pyro.sample("theta_trans", dist.Normal(torch.zeros(8), 1.0).to_event(1))
    theta = pyro.deterministic("theta", mu + tau * theta_trans)
    observe(dist.Normal(theta, data["sigma"]), data["y"])


def nes(data: Data) -> None:
    beta, sigma = flat("beta", size=9), flat("sigma", constraints.positive)
    age = data["age_discrete"]
    columns = [torch.ones_like(age), data["real_ideo"], data["race_adj"], *((age == k) + 0.0 for k in (2, 3, 4))]
    x = torch.stack([*columns, data["educ1"], data["gender"], data["income"]], -1)
    observe(dist.Normal(x @ beta, sigma), data["partyid7"])


def kidscore_interaction(data: Data) -> None:
    beta, sigma = flat("beta", size=4), pyro.sample("sigma", dist.HalfCauchy(2.5))
    hs, iq = data["mom_hs"], data["mom_iq"]
    observe(dist.Normal(torch.stack([torch.ones_like(hs), hs, iq, hs * iq], -1) @ beta, sigma), data["kid_score"])


def kilpisjarvi(data: Data) -> None:
    alpha = pyro.sample("alpha", dist.Normal(data["pmualpha"], data["psalpha"]))
    beta = pyro.sample("beta", dist.Normal(data["pmubeta"], data["psbeta"]))
    observe(dist.Normal(alpha + beta * data["x"], flat("sigma", constraints.positive)), data["y"])


def ar_k(data: Data) -> None:
    alpha = pyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = pyro.sample("beta", dist.Normal(torch.zeros(5), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    past = data["y"].unfold(0, 5, 1)[:-1].flip(-1)
    observe(dist.Normal(alpha + past @ beta, sigma), data["y"][5:])


def gp_poisson(data: Data) -> None:
    rho, alpha = pyro.sample("rho", dist.Gamma(25.0, 4.0)), pyro.sample("alpha", dist.HalfNormal(2.0))
    n = len(data["x"])
    f_tilde = pyro.sample("f_tilde", dist.Normal(torch.zeros(n), 1.0).to_event(1))
    apart = data["x"][:, None] - data["x"]
    covariance = alpha**2 * torch.exp(-(apart**2) / (2 * rho**2)) + 1e-10 * torch.eye(n)
    # Unlike torch.linalg.cholesky, this does not fail for all lanes when one has diverged.
    factor = torch.linalg.cholesky_ex(covariance).L
    observe(dist.Poisson(torch.exp(pyro.deterministic("f", factor @ f_tilde))), data["k"])


def gauss_mix(data: Data) -> None:
    mu = flat("mu", constraints.ordered_vector, 2)
    pyro.factor("prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0 * torch.ones(2)).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    first, second = (dist.Normal(mu[k], sigma[k]).log_prob(data["y"]) for k in (0, 1))
    pyro.factor("obs", torch.logaddexp(torch.log(theta) + first, torch.log1p(-theta) + second).sum())


POSTERIORDB: dict[str, Callable[[Data], None]] = {
    "eight_schools-eight_schools_noncentered": eight_schools_noncentered,
    "nes2000-nes": nes,
    "kidiq-kidscore_interaction": kidscore_interaction,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "arK-arK": ar_k,
    "gp_pois_regr-gp_pois_regr": gp_poisson,
    "low_dim_gauss_mix-low_dim_gauss_mix": gauss_mix,
}


def from_posteriordb(folder: Path) -> list[Posterior]:
    """The seven above, of a folder with one folder a posterior."""
    posteriors = []
    for name, model in POSTERIORDB.items():
        values = json.loads((folder / name / "data.json").read_text())
        data = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
        summary = json.loads((folder / name / "reference.json").read_text())["parameters"]
        reference = {key: (entry["mean"], entry["sd"]) for key, entry in summary.items()}
        posteriors.append(Posterior(name.partition("-")[2], partial(model, data), reference))
    return posteriors


def shipped() -> list[Posterior]:
    """The models that come with the package."""
    problems = {"radon": Radon().problem(loader()), "eight_schools (shipped)": EightSchools().problem(loader())}
    return [
        Posterior(name, partial(problem.to(torch.float64, torch.device("cpu")).model, **_double(problem.kwargs)))
        for name, problem in problems.items()
    ]


def _double(kwargs: Any) -> dict[str, Any]:
    return {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in kwargs.items()}
