"""The user's own model, by its Python path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from sweepvi.errors import ConfigError
from sweepvi.errors import Problem as Complaint
from sweepvi.keys import Key
from sweepvi.loading import Load, described
from sweepvi.problem import Model, Problem


@dataclass(frozen=True)
class CustomModel(Model):
    """Your own model: FILE.py:NAME or package.module:NAME, with its data if it takes any."""

    path: Annotated[str, Key("Python path of the model, as FILE.py:NAME or package.module:NAME")]
    data: Annotated[
        str | None,
        Key("Python path of the data, or of a function that returns it: a dict, a tuple or one tensor"),
    ] = None

    def problem(self, load: Load) -> Problem:
        """Load model and data; a class is instantiated. ``ConfigError`` if that fails."""
        model = load("model.path", self.path)
        if isinstance(model, type):
            model = _called("model.path", self.path, model)
        if not callable(model):
            raise ConfigError([Complaint.of("model.path", self.path, "is not callable")])
        data = () if self.data is None else load("model.data", self.data)
        if callable(data):
            data = _called("model.data", self.data, data)
        return given_problem(model, data)


def given_problem(model: Any, data: Any) -> Problem:
    """A model with its data: a dict holds keyword arguments, a tuple positional ones, anything else is one argument."""
    if isinstance(data, Mapping):
        return Problem(model, kwargs={str(key): value for key, value in data.items()})
    return Problem(model, args=data if isinstance(data, tuple) else (data,))


def _called(key: str, path: str | None, function: Any) -> Any:
    try:
        return function()
    except Exception as error:
        raise ConfigError([Complaint.of(key, path, f"calling it fails: {described(error)}")]) from error
