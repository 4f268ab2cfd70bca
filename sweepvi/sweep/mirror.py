"""The study in a database of Optuna's, for optuna-dashboard: a copy of the finished trials."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi import telling
from sweepvi.errors import ConfigError, Problem
from sweepvi.sweep.records import RUNNING, Direction, StudyRecord

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

KEY = "sweep.storage"
DATABASE = "study.db"
"""The file in the sweep folder, where no other database is named."""

BATCH = 500
"""Trials in a transaction."""

CONNECT_SECONDS = 10
"""How long to wait for a server."""


class Mirror:
    """Finished trials, copied into a database of Optuna's whenever :meth:`sync` is called.

    The event log is what counts: a database that is lost or out of reach costs a sweep nothing. Storages number trials
    as they come; a trial's own number is its user attribute ``number``.
    """

    def __init__(self, storage: str | None, folder: Path, study_name: str) -> None:
        """Name the database: a URL, ``journal:PATH``, ``env:NAME`` or ``file:PATH`` with one of these in it.

        None is ``study.db`` in the sweep folder. Nothing is opened yet.
        """
        self.storage = storage
        self.folder = folder
        self.study_name = study_name
        self._opened: optuna.storages.BaseStorage | None = None
        self._study: optuna.Study | None = None
        self._there: set[int] = set()

    def check(self) -> None:
        """Open the database.

        Raises ``ConfigError`` if it is not known or cannot be reached.
        """
        self._open()

    def prepare(self) -> None:
        """Open the database, which may take a second; what is wrong with it is :meth:`sync`'s to say."""
        with contextlib.suppress(Exception):
            self._open()

    def sync(self, record: StudyRecord) -> str:
        """Copy the finished trials that are not there yet; returns what went wrong, if something did."""
        from sweepvi.sweep.frozen import frozen

        try:
            study = self._study or self._load(record.directions)
            new = [trial for trial in record.trials if trial.state != RUNNING and trial.number not in self._there]
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                self._append(study, [frozen(trial, record) for trial in batch])
                self._there.update(trial.number for trial in batch)
        except ConfigError as error:
            return str(error)
        except _failures() as error:
            # What is there is counted anew once it can be reached again.
            self._study = None
            return f"{self._where()}: {_first_line(error)}"
        return ""

    def close(self) -> None:
        """Let go of the database."""
        engine = getattr(self._opened, "engine", None)
        if engine is not None:
            self._opened.remove_session()  # type: ignore[union-attr]
            engine.dispose()
        self._opened = self._study = None

    def _open(self) -> optuna.storages.BaseStorage:
        if self._opened is None:
            url = self._url()
            try:
                self._opened = _storage(url)
            except _failures() as error:
                raise self._wrong(f"{self._where()} cannot be reached: {_first_line(error)}") from None
            except ImportError as error:
                missing = getattr(error.__cause__, "name", None) or _first_line(error)
                raise self._wrong(f"{self._where()} needs a package that is not installed: {missing}") from None
        return self._opened

    def _load(self, directions: list[Direction]) -> optuna.Study:
        import optuna

        from sweepvi.sweep.frozen import NUMBER, quiet

        with quiet():
            study = optuna.create_study(
                storage=self._open(), study_name=self.study_name, directions=directions, load_if_exists=True
            )
        if [direction.name.lower() for direction in study.directions] != directions:
            raise self._wrong(f"{self._where()} holds a study {self.study_name!r} with other objectives")
        self._there = {
            trial.user_attrs[NUMBER] for trial in study.get_trials(deepcopy=False) if NUMBER in trial.user_attrs
        }
        self._study = study
        return study

    def _append(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        from optuna.storages import RDBStorage

        from sweepvi.sweep.bulk import append

        if isinstance(self._opened, RDBStorage):
            append(self._opened, study, trials)
        else:
            study.add_trials(trials)

    def _url(self) -> str:
        """The URL itself, that may hold a password: for nobody to read."""
        if self.storage is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            return f"sqlite:///{self.folder / DATABASE}"
        kind, _, rest = self.storage.partition(":")
        if kind == "env":
            if rest not in os.environ:
                raise self._wrong(f"there is no environment variable {rest}")
            return os.environ[rest].strip()
        if kind == "file":
            try:
                return Path(rest).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise self._wrong(f"{rest} cannot be read: {_first_line(error)}") from None
        return self.storage

    def _where(self) -> str:
        """The database, as it was named: without what is in a variable or file."""
        return f"the database {self.storage or telling.shown(self.folder / DATABASE)}"

    def _wrong(self, message: str) -> ConfigError:
        return ConfigError([Problem(KEY, message)])


def _storage(url: str) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if url.startswith("journal:"):
        path = Path(url.removeprefix("journal:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    options: dict[str, Any] = {}
    if url.partition(":")[0] in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        options = {"connect_args": {"connect_timeout": CONNECT_SECONDS}}
    return RDBStorage(url, engine_kwargs=options)


def _failures() -> tuple[type[Exception], ...]:
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    # RuntimeError: a database of another version of Optuna.
    return (OptunaError, SQLAlchemyError, OSError, RuntimeError)


def _first_line(error: Exception) -> str:
    """What an error says, without what SQLAlchemy adds."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    text = str(getattr(cause, "orig", None) or cause).strip()
    return text.splitlines()[0] if text else type(error).__name__
