"""Python paths → objects: ``FILE.py:NAME`` and ``package.module:NAME``.

Loading runs the user's code. It is called for paths that the user gave on the command line or in Python, never for
one that only a file holds (see :mod:`sweepvi.config`).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, TypeAlias

from sweepvi.errors import ConfigError, Problem, unknown

Load: TypeAlias = Callable[[str, str], Any]
"""``load(key, path)``: the object at ``path``; ``key`` names the setting in an error."""


def loader() -> Load:
    """A fresh loader: the files it loads are executed once, and apart from what other loaders did with them."""
    modules: dict[str, ModuleType] = {}

    def load(key: str, path: str) -> Any:
        module_name, _, attributes = path.rpartition(":")
        if not module_name or not attributes:
            raise _error(key, path, "must be FILE.py:NAME or package.module:NAME")
        if module_name not in modules:
            modules[module_name] = _import(key, path, module_name)
        return _attribute(key, path, modules[module_name], attributes)

    return load


def load_program(key: str, path: str, load: Load) -> Any:
    """A model or guide, or a class of them: what is at ``path``; ``ConfigError`` if it cannot be called."""
    program = load(key, path)
    if not callable(program):
        raise _error(key, path, f"is not callable: {type(program).__name__}")
    return program


def called(key: str, path: str, function: Callable[[], Any]) -> Any:
    """What a function of the user's returns; ``ConfigError`` if it fails."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise _error(key, path, f"calling it fails: {described(error)}") from error


def path_of(thing: Any) -> str:
    """The path of a function or class, or of an object's class: ``module:name``."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}:{named.__qualname__}"


def _import(key: str, path: str, name: str) -> ModuleType:
    try:
        return _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except _NoFileError as error:
        raise _error(key, path, f"no file {name}") from error
    except ModuleNotFoundError as error:
        raise _error(key, path, f"cannot import {error.name!r}; a file is given as FILE.py:NAME") from error
    except (Exception, SystemExit) as error:
        raise _error(key, path, f"importing it fails: {described(error)}") from error


class _NoFileError(Exception):
    pass


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise _NoFileError
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        # Last, so that a file of the user's called random.py hides no other module.
        sys.path.append(folder)
    name = f"_sweepvi_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name while it runs.
    sys.modules[name] = module
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def _attribute(key: str, path: str, module: ModuleType, attributes: str) -> Any:
    found: Any = module
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            names = [name for name in dir(found) if not name.startswith("_")]
            raise _error(key, path, unknown(f"name in {module.__name__}", attribute, names))
        found = getattr(found, attribute)
    return found


def described(error: BaseException) -> str:
    """An exception in one line, with the last place in the user's own code: ``ValueError: … (mine.py:12)``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_the_users(frame.filename)]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {message_of(error)}{place}"


def message_of(error: BaseException, width: int = 600) -> str:
    """An exception's message in one line, without the table of shapes that Pyro appends."""
    return shorten(str(error).partition("Trace Shapes:")[0], width, placeholder=" …")


def is_the_users(filename: str) -> bool:
    """Whether a file of a traceback is the user's own code, not an installed package's, Python's or sweepvi's."""
    file = Path(filename)
    library = "site-packages" in file.parts or file.is_relative_to(sys.base_prefix)
    return file.suffix == ".py" and not library and not file.is_relative_to(Path(__file__).parent)


def _error(key: str, path: str, message: str) -> ConfigError:
    return ConfigError([Problem.of(key, path, message)])
