"""The user's own guide, by its Python path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pyro.infer.autoguide import AutoGuide

from sweepvi.guides.guide import Guide, Program
from sweepvi.keys import Key
from sweepvi.loading import Load, load_program
from sweepvi.private import fresh_autoguide


@dataclass(frozen=True)
class CustomGuide(Guide):
    """Your own guide: FILE.py:NAME or package.module:NAME."""

    path: Annotated[str, Key("Python path of the guide, as FILE.py:NAME or package.module:NAME")]

    def resolve(self, load: Load) -> Guide:
        """Load the path; ``ConfigError`` if that fails."""
        return GivenGuide(load_program("guide.path", self.path, load))

    def build(self, model: Program) -> Program:
        """Not possible before :meth:`resolve`."""
        raise TypeError("a custom guide is built from what resolve() returns")


@dataclass(frozen=True)
class GivenGuide(Guide):
    """A guide that exists already: a callable, an autoguide, or an autoguide's class."""

    program: Any

    def standardized(self) -> Guide:
        """See :meth:`Guide.standardized`: the class of an autoguide takes any model."""
        return self if isinstance(self.program, type) else super().standardized()

    def build(self, model: Program) -> Program:
        """The guide itself; an autoguide's class is given the model, an unused autoguide is copied.

        An autoguide creates its parameters when it first runs. On a copy, a second fit starts where the first did.
        """
        if isinstance(self.program, type):
            return self.program(model)
        if isinstance(self.program, AutoGuide) and self.program.prototype_trace is None:
            return fresh_autoguide(self.program)
        return self.program
