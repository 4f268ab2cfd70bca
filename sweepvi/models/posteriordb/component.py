"""Ten posteriors of posteriordb, whose data are in a folder that the user downloads.

Magnusson, Torgander, Bürkner, Zhang, Carpenter & Vehtari, "posteriordb: Testing, Benchmarking and Developing Bayesian
Inference Algorithms", 2025: models, data, and reference draws to compare a fit with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from sweepvi.errors import ConfigError
from sweepvi.errors import Problem as Complaint
from sweepvi.keys import Key
from sweepvi.loading import Load
from sweepvi.models.posteriordb import (
    ar_k,
    eight_schools_noncentered,
    garch11,
    gp_pois_regr,
    hmm_example,
    kidscore_interaction,
    kilpisjarvi,
    lotka_volterra,
    low_dim_gauss_mix,
    nes,
)
from sweepvi.models.posteriordb.folder import data_file, read_json
from sweepvi.problem import Model, Problem

Name: TypeAlias = Literal[
    "arK",
    "eight_schools_noncentered",
    "garch11",
    "gp_pois_regr",
    "hmm_example",
    "kidscore_interaction",
    "kilpisjarvi",
    "lotka_volterra",
    "low_dim_gauss_mix",
    "nes",
]


@dataclass(frozen=True)
class Posterior:
    """A posterior: posteriordb's name for it, a Pyro model, and how its arguments are made of posteriordb's data."""

    name: str
    model: Callable[..., None]
    arguments: Callable[[Mapping[str, Any]], dict[str, Any]]


def _of(data: str, name: str, module: Any) -> Posterior:
    return Posterior(f"{data}-{name}", module.model, module.arguments)


POSTERIORS = {
    "arK": _of("arK", "arK", ar_k),
    "eight_schools_noncentered": _of("eight_schools", "eight_schools_noncentered", eight_schools_noncentered),
    "garch11": _of("garch", "garch11", garch11),
    "gp_pois_regr": _of("gp_pois_regr", "gp_pois_regr", gp_pois_regr),
    "hmm_example": _of("hmm_example", "hmm_example", hmm_example),
    "kidscore_interaction": _of("kidiq", "kidscore_interaction", kidscore_interaction),
    "kilpisjarvi": _of("kilpisjarvi_mod", "kilpisjarvi", kilpisjarvi),
    "lotka_volterra": _of("hudson_lynx_hare", "lotka_volterra", lotka_volterra),
    "low_dim_gauss_mix": _of("low_dim_gauss_mix", "low_dim_gauss_mix", low_dim_gauss_mix),
    "nes": _of("nes2000", "nes", nes),
}
"""Short name, which is the Stan model's → posterior."""
assert tuple(POSTERIORS) == get_args(Name)

SOURCE = "git clone --depth 1 https://github.com/stan-dev/posteriordb (BSD-3-Clause)"


@dataclass(frozen=True)
class Posteriordb(Model):
    """One of ten posteriors of posteriordb, which have reference draws; the data are downloaded apart."""

    posterior: Annotated[Name, Key("which one, by the name of its Stan model")]
    folder: Annotated[str, Key("where posteriordb was downloaded to")] = "posteriordb"

    def problem(self, load: Load) -> Problem:
        """The model with posteriordb's data; ``ConfigError`` if they are not in the folder."""
        del load
        found = POSTERIORS[self.posterior]
        file = data_file(Path(self.folder), found.name)
        try:
            return Problem(found.model, kwargs=found.arguments(read_json(file)))
        except OSError as error:
            message = f"cannot read {file}; set it to where posteriordb is, got by {SOURCE}"
            raise ConfigError([Complaint.of("model.folder", self.folder, message)]) from error
        except (KeyError, TypeError, ValueError) as error:
            message = f"{file} does not hold the data of {found.name}; get them by {SOURCE}"
            raise ConfigError([Complaint.of("model.folder", self.folder, message)]) from error
