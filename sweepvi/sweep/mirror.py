"""The study in a database of Optuna's, for optuna-dashboard: a copy of the finished trials."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from sweepvi import telling
from sweepvi.errors import ConfigError
from sweepvi.sweep import database
from sweepvi.sweep.records import RUNNING, Direction, StudyRecord

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DATABASE = "study.db"
"""The file in the sweep folder, where no other database is named."""

BATCH = 500
"""Trials in a transaction."""


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
        except database.failures() as error:
            # What is there is counted anew once it can be reached again.
            self._study = None
            return f"{self._where()}: {database.first_line(error)}"
        return ""

    def look_again(self) -> None:
        """Others may have copied trials: ask the database at the next :meth:`sync`."""
        self._study = None

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
            except database.failures() as error:
                raise database.wrong(f"{self._where()} cannot be reached: {database.first_line(error)}") from None
            except ImportError as error:
                missing = database.missing_package(error)
                raise database.wrong(f"{self._where()} needs a package that is not installed: {missing}") from None
        return self._opened

    def _load(self, directions: list[Direction]) -> optuna.Study:
        import optuna

        from sweepvi.sweep.frozen import NUMBER, quiet

        with quiet():
            study = optuna.create_study(
                storage=self._open(), study_name=self.study_name, directions=directions, load_if_exists=True
            )
        if [direction.name.lower() for direction in study.directions] != directions:
            raise database.wrong(f"{self._where()} holds a study {self.study_name!r} with other objectives")
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
        if self.storage is not None:
            return database.url_of(self.storage)
        self.folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{self.folder / DATABASE}"

    def _where(self) -> str:
        """The database, as it was named: without what is in a variable or file."""
        return f"the database {self.storage or telling.shown(self.folder / DATABASE)}"


def _storage(url: str) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if url.startswith("journal:"):
        path = Path(url.removeprefix("journal:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    with_driver, options = database.for_sqlalchemy(url)
    with database.alone(url):
        return RDBStorage(with_driver, engine_kwargs={"connect_args": options} if options else {})
