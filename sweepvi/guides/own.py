"""The guide that a model brings along: its attribute or method ``guide``.

Guides that are as much work as their model, an encoder for one, are written with it: ``class VAE`` with ``model`` and
``guide`` is the custom of Pyro's tutorials.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

from sweepvi.errors import ConfigError, Problem
from sweepvi.guides.custom import GivenGuide
from sweepvi.guides.guide import Guide, Program


def brought(model: Any) -> Program | None:
    """The guide that a model brings, or that the object brings whose method it is; None if there is none."""
    owner = model.__self__ if isinstance(model, types.MethodType) else model
    guide = getattr(owner, "guide", None)
    return guide if callable(guide) else None


@dataclass(frozen=True)
class OwnGuide(Guide):
    """The guide that the model brings: its attribute or method guide."""

    def build(self, model: Program) -> Program:
        """The guide of ``model``; ``ConfigError`` if it brings none."""
        return self.of(model).build(model)

    def of(self, model: Any) -> GivenGuide:
        """The guide component that stands for the guide of ``model``.

        A method of an object has that object's guide. What an estimator wraps around a model hides it, so this is asked
        before.
        """
        guide = brought(model)
        if guide is not None:
            return GivenGuide(guide)
        message = "the model brings none; use auto_normal, or give the model a method (or attribute) guide"
        raise ConfigError([Problem.of("guide", "own", message)])
