"""The event log of a study that several agents share: a table of a database, in the order in which all agents read it.

An agent is one ``python -m sweepvi -m …``: a controller and its workers. Whatever an agent decides, it decides in its
turn: it holds the study's row, has read all that others have written, and what it writes is there for the next one. So
every agent sees the same events in the same order, and whatever follows from them alone is the same everywhere.

Each agent's folder has a copy, ``study.jsonl``.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi.errors import ConfigError, SweepviError
from sweepvi.sweep import database
from sweepvi.sweep.log import EventLog

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TABLES = (
    "CREATE TABLE IF NOT EXISTS sweepvi_study (name TEXT PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS sweepvi_event (place BIGSERIAL PRIMARY KEY, study TEXT NOT NULL, event TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS sweepvi_event_of_study ON sweepvi_event (study, place)",
    "CREATE TABLE IF NOT EXISTS sweepvi_agent (study TEXT, agent TEXT, seen TIMESTAMPTZ, PRIMARY KEY (study, agent))",
)
Events = list[dict[str, Any]]


class UnreachableError(Exception):
    """The database does not answer; nothing of the turn has happened."""


class SharedLog(EventLog):
    """See the module. A context, as :class:`EventLog` is; inside, the agent counts as alive.

    Raises ``ConfigError`` on entering if the database cannot be used.

    Args:
        folder: of this agent.
        storage: as in the settings.
        study: its name in the database.
        patience: seconds after which an agent that has been silent counts as dead.

    """

    def __init__(self, folder: Path, storage: str, study: str, patience: float) -> None:
        super().__init__(folder)
        self.study, self._storage, self._patience = study, storage, patience
        self.agent = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.agents = 1
        """How many are alive, as of the last turn."""
        self._engine: Engine | None = None
        self._last = 0
        self._alive: frozenset[str] = frozenset()

    def __enter__(self) -> SharedLog:
        self._take_a_folder()
        try:
            self._open()
        except database.failures() as error:
            self._lock.release()
            raise database.wrong(f"{self.where} cannot be used: {database.first_line(error)}") from None
        except ImportError as error:
            self._lock.release()
            missing = database.missing_package(error)
            raise database.wrong(f"{self.where} needs a package that is not installed: {missing}") from None
        return self

    def __exit__(self, *error: Any) -> None:
        # Those who wait for this agent's trials need not be patient.
        assert self._engine is not None
        with suppress(*database.failures()), self._engine.begin() as connection:
            self._run(connection, "DELETE FROM sweepvi_agent WHERE study = :study AND agent = :agent")
        self._engine.dispose()
        super().__exit__(*error)

    def _take_a_folder(self) -> None:
        """Lock the folder, or another one in it where an agent has that already: machines may share a disk."""
        whole = self.path.parent
        for number in itertools.count(2):
            try:
                super().__enter__()
            except ConfigError:
                super().__init__(whole / "agents" / f"{number}")
            else:
                return

    @property
    def where(self) -> str:
        """The database, as it was named."""
        return f"the database {self._storage}"

    @contextmanager
    def turn(self) -> Iterator[Events]:
        """Inside, nobody else has the study; gives what others have written since the last turn.

        What has been added since then is written at its end.

        Raises:
            UnreachableError: the database does not answer, before anything has happened.
            SweepviError: it does not any more, and what was decided in the turn is lost.

        """
        with ExitStack() as stack:
            try:
                assert self._engine is not None
                connection = stack.enter_context(self._engine.connect())
                self._run(connection, "SELECT name FROM sweepvi_study WHERE name = :study FOR UPDATE")
                self._look_around(connection)
                found = self._run(
                    connection,
                    "SELECT place, event FROM sweepvi_event WHERE study = :study AND place > :last ORDER BY place",
                    last=self._last,
                ).all()
            except database.failures() as error:
                raise UnreachableError(database.first_line(error)) from error
            yield [json.loads(text) for _, text in found]
            last = self._written(connection, found[-1][0] if found else self._last)
        self._last = last
        self._keep([text + "\n" for _, text in found])

    def _written(self, connection: Connection, last: int) -> int:
        """Write what has been added, and let the others have the study; returns the place of the last event."""
        try:
            for text in self._unwritten:
                [[last]] = self._run(
                    connection,
                    "INSERT INTO sweepvi_event (study, event) VALUES (:study, :event) RETURNING place",
                    event=text.rstrip("\n"),
                ).all()
            connection.commit()
        except database.failures() as error:
            raise SweepviError(
                f"{self.where} was lost: {database.first_line(error)}; what others have not heard of is run again, and "
                "the same command goes on"
            ) from error
        return last

    def write(self) -> None:
        """Nothing: what is added is written at the end of a turn."""

    def _open(self) -> None:
        from sqlalchemy import text

        url = database.url_of(self._storage)
        self._engine = database.connected(url)
        with database.alone(url), self._engine.begin() as connection:
            for table in TABLES:
                connection.execute(text(table))
            self._run(connection, "INSERT INTO sweepvi_study (name) VALUES (:study) ON CONFLICT DO NOTHING")
        if self.path.exists():
            # The table is what counts, and is copied from its beginning.
            self.path.unlink()

    def _look_around(self, connection: Connection) -> None:
        """Be seen, and see who is there; by the database's clock."""
        self._run(
            connection,
            "INSERT INTO sweepvi_agent (study, agent, seen) VALUES (:study, :agent, clock_timestamp()) "
            "ON CONFLICT (study, agent) DO UPDATE SET seen = clock_timestamp()",
        )
        rows = self._run(
            connection,
            "SELECT agent, seen > clock_timestamp() - make_interval(secs => :patience) "
            "FROM sweepvi_agent WHERE study = :study",
            patience=self._patience,
        ).all()
        self.agents = sum(alive for _, alive in rows)
        self._alive = frozenset(agent for agent, alive in rows if alive)

    def is_alive(self, agent: str) -> bool:
        """Whether an agent has been seen, as of the last turn."""
        return agent in self._alive

    def _run(self, connection: Connection, statement: str, **values: Any) -> Any:
        from sqlalchemy import text

        known = {"study": self.study, "agent": self.agent}
        named = {name: value for name, value in known.items() if f":{name}" in statement}
        return connection.execute(text(statement), {**named, **values})

    def _keep(self, heard: list[str]) -> None:
        """Copy events into the folder: those of others, then this agent's."""
        self._unwritten = heard + self._unwritten
        super().write()
