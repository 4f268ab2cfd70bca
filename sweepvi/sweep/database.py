"""The database that ``sweep.storage`` names: its URL, which may hold a password, and what goes wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sweepvi.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sqlalchemy import Engine

KEY = "sweep.storage"

CONNECT_SECONDS = 10
"""How long to wait for a server."""

LOCK = 0x5EE9
"""Of those who make tables."""

SHARED = ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")
"""Kinds of databases in which several agents can share a study."""


def url_of(storage: str) -> str:
    """The URL itself, that may hold a password: for nobody to read.

    Args:
        storage: a URL, ``env:NAME`` or ``file:PATH`` with one in it; others are left as they are.

    Raises:
        ConfigError: there is no such variable or file.

    """
    kind, _, rest = storage.partition(":")
    if kind == "env":
        if rest not in os.environ:
            raise wrong(f"there is no environment variable {rest}")
        return os.environ[rest].strip()
    if kind == "file":
        try:
            return Path(rest).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise wrong(f"{rest} cannot be read: {first_line(error)}") from None
    return storage


def is_shared(storage: str | None) -> bool:
    """Whether several agents can share a study there; raises as :func:`url_of`."""
    return storage is not None and url_of(storage).partition(":")[0] in SHARED


def for_sqlalchemy(url: str) -> tuple[str, dict[str, object]]:
    """A URL with its driver, where there is a choice, and the options of a connection."""
    kind, _, rest = url.partition(":")
    if kind not in SHARED:
        return url, {}
    if kind == "postgresql" and find_spec("psycopg") is not None:
        url = f"postgresql+psycopg:{rest}"
    return url, {"connect_timeout": CONNECT_SECONDS}


def connected(url: str) -> Engine:
    """A way to a database."""
    from sqlalchemy import create_engine

    url, options = for_sqlalchemy(url)
    return create_engine(url, connect_args=options, pool_pre_ping=True)


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Inside, nobody else makes tables in a shared database: of two at once, it would refuse the second."""
    from sqlalchemy import text

    if url.partition(":")[0] not in SHARED:
        yield
        return
    engine = connected(url)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            yield
    finally:
        engine.dispose()


def failures() -> tuple[type[Exception], ...]:
    """What a database that cannot be used raises."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    # RuntimeError: a database of another version of Optuna.
    return (OptunaError, SQLAlchemyError, OSError, RuntimeError)


def first_line(error: Exception) -> str:
    """What an error says, without what SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    text = str(getattr(cause, "orig", None) or cause).strip()
    return text.splitlines()[0] if text else type(error).__name__


def missing_package(error: ImportError) -> str:
    """What could not be imported."""
    return getattr(error.__cause__, "name", None) or error.name or first_line(error)


def wrong(message: str) -> ConfigError:
    """A mistake in the setting."""
    return ConfigError([Problem(KEY, message)])
