"""What an estimator is: a recipe for one of Pyro's ELBO objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pyro.infer.elbo import ELBO

from sweepvi.keys import Key, Keyed


@dataclass(frozen=True)
class Estimator(Keyed, ABC):
    """Builds a fresh ELBO for every fit: Pyro's objects remember the first model that they see."""

    num_particles: Annotated[int, Key("draws averaged in each gradient", ge=1)] = 1
    vectorize_particles: Annotated[bool, Key("evaluate all draws at once (the model must broadcast)")] = False

    @abstractmethod
    def build(self) -> ELBO:
        """A new ELBO object, used by one fit only."""
