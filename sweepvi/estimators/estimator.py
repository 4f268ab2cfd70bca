"""What an estimator is: a recipe for one of Pyro's ELBO objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from sweepvi.keys import Key, Keyed


class Elbo(Protocol):
    """What is used of Pyro's ELBO objects."""

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """An estimate of -ELBO."""
        ...

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """An estimate of -ELBO, its gradient left in the parameters' ``.grad``."""
        ...


@dataclass(frozen=True)
class Estimator(Keyed, ABC):
    """Builds a fresh ELBO for every fit: Pyro's objects remember the first model that they see."""

    num_particles: Annotated[int, Key("draws averaged in each gradient", ge=1)] = 1
    vectorize_particles: Annotated[bool, Key("evaluate all draws at once (the model must broadcast)")] = False

    @abstractmethod
    def build(self) -> Elbo:
        """A new ELBO object, used by one fit only."""
