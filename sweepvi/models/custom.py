"""The user's own model, by its Python path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from sweepvi.errors import collected, raise_if
from sweepvi.keys import Key
from sweepvi.loading import Load, called, load_program
from sweepvi.problem import Model, Problem


@dataclass(frozen=True)
class CustomModel(Model):
    """Your own model: FILE.py:NAME or package.module:NAME, with its data if it takes any."""

    path: Annotated[str, Key("Python path of the model, as FILE.py:NAME or package.module:NAME")]
    data: Annotated[
        str | None,
        Key("Python path of the data, or of a function that returns it: a dict, a tuple or one tensor"),
    ] = None
    heldout: Annotated[
        str | None,
        Key("Python path of data that the fit does not see, in the form of data; for sweep.objective=heldout"),
    ] = None

    def problem(self, load: Load) -> Problem:
        """Load model and data; the model may be a class. ``ConfigError`` says all that fails."""
        (model, data, heldout), problems = collected(
            lambda: load_program("model.path", self.path, load),
            lambda: _loaded("model.data", self.data, load),
            lambda: _loaded("model.heldout", self.heldout, load),
        )
        raise_if(problems)
        unseen = problem_with(model, heldout)
        return replace(
            problem_with(model, data), heldout=None if self.heldout is None else (unseen.args, unseen.kwargs)
        )


def _loaded(key: str, path: str | None, load: Load) -> Any:
    if path is None:
        return ()
    data = load(key, path)
    return called(key, path, data) if callable(data) else data


def problem_with(model: Any, data: Any) -> Problem:
    """A model with its data: a dict holds keyword arguments, a tuple positional ones, anything else is one argument."""
    if isinstance(data, Mapping):
        return Problem(model, kwargs={str(key): value for key, value in data.items()})
    return Problem(model, args=data if isinstance(data, tuple) else (data,))
