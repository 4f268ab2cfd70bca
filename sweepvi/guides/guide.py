"""What a guide component is: it builds the guide of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pyro.infer.autoguide import initialization

from sweepvi.keys import Key, Keyed
from sweepvi.loading import Load

Program: TypeAlias = Callable[..., Any]
"""A Pyro model or guide: a function, a ``PyroModule``, or any callable with sample statements."""


@dataclass(frozen=True)
class Guide(Keyed, ABC):
    """A guide component."""

    start_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that say where a fit starts, and nothing else."""

    @abstractmethod
    def build(self, model: Program) -> Program:
        """A new guide of ``model``; its parameters appear when it first runs."""

    def resolve(self, load: Load) -> Guide:
        """The guide component to build from: itself, unless it names a Python path to be loaded first."""
        del load
        return self

    def note(self) -> str | None:
        """What a reader of the fit's ELBO must know about this guide."""
        return None


@dataclass(frozen=True)
class AutoGuideFamily(Guide, ABC):
    """What all of Pyro's autoguides share: where the latent variables start."""

    start_keys: ClassVar[tuple[str, ...]] = ("init",)

    init: Annotated[
        Literal["median", "mean", "feasible", "sample", "uniform"],
        Key("where latent variables start: prior median, prior mean, origin, a prior draw, or (-2, 2)"),
    ] = "median"

    def init_loc_fn(self) -> Callable[..., Any]:
        """Pyro's initialisation function of that name."""
        return getattr(initialization, f"init_to_{self.init}")


@dataclass(frozen=True)
class ScaledAutoGuide(AutoGuideFamily, ABC):
    """Autoguides that start as a normal of a given scale."""

    start_keys: ClassVar[tuple[str, ...]] = ("init", "init_scale")

    init_scale: Annotated[float, Key("standard deviation at the start, in unconstrained coordinates", gt=0)] = 0.1
