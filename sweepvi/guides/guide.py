"""What a guide component is: it builds the guide of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from sweepvi.errors import ConfigError, Problem
from sweepvi.guides.initial import init_loc
from sweepvi.keys import Key, Keyed
from sweepvi.loading import Load

Program: TypeAlias = Callable[..., Any]
"""A Pyro model or guide: a function, a ``PyroModule``, or any callable with sample statements."""


@dataclass(frozen=True)
class Guide(Keyed, ABC):
    """A guide component."""

    start_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that say where a fit starts, and nothing else."""

    flow: ClassVar[bool] = False
    """Whether networks bend its draws, so that it can fit any number of them by themselves."""

    @abstractmethod
    def build(self, model: Program) -> Program:
        """A new guide of ``model``; its parameters appear when it first runs."""

    def resolve(self, load: Load) -> Guide:
        """The guide component to build from: itself, unless it names a Python path to be loaded first."""
        del load
        return self

    def standardized(self) -> Guide:
        """The guide as it starts in the coordinates of a geometry: as a standard normal, where it can.

        Raises ``ConfigError`` if the guide is written for the model's own variables.
        """
        message = "is written for the model's own variables; a geometry is for automatic guides. Use geometry=none"
        raise ConfigError([Problem("guide", message)])

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
        """Pyro's initialisation function of that name, for flat priors too."""
        return init_loc(self.init)

    def standardized(self) -> Guide:
        """See :meth:`Guide.standardized`: every guide of the family starts at the origin of a geometry."""
        return self


@dataclass(frozen=True)
class ScaledAutoGuide(AutoGuideFamily, ABC):
    """Autoguides that start as a normal of a given scale."""

    start_keys: ClassVar[tuple[str, ...]] = ("init", "init_scale")

    init_scale: Annotated[
        float | None,
        Key("standard deviation at the start, in the guide's coordinates; null: 0.1, or 1 with a geometry", gt=0),
    ] = None

    @property
    def start_scale(self) -> float:
        """The standard deviation at the start."""
        return 0.1 if self.init_scale is None else self.init_scale

    def standardized(self) -> Guide:
        """See :meth:`Guide.standardized`."""
        return replace(self, init_scale=1.0) if self.init_scale is None else self
