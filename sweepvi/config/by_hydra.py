"""Hydra, composing: its answer or its complaint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sweepvi.config.locate import conf_dir
from sweepvi.errors import Problem

if TYPE_CHECKING:
    from omegaconf import DictConfig

_SEARCH_PATH = "hydra.searchpath"


def version_base() -> dict[str, str]:
    """The argument that Hydra 1.3 wants and 1.4 warns of."""
    import hydra

    major, minor = hydra.__version__.split(".")[:2]
    return {"version_base": "1.3"} if (int(major), int(minor)) < (1, 4) else {}


def by_hydra(overrides: list[str]) -> DictConfig | Problem:
    """What Hydra composes of the shipped files, its own node included; or why it cannot.

    Hydra takes 0.3 seconds, and a sweep asks for the same choices again and again: where only shipped files are read,
    which no process outlives, each list of overrides is composed once.
    """
    if any(_SEARCH_PATH in text for text in overrides):
        return _composed(overrides)
    known = _remembered(tuple(overrides))
    return known if isinstance(known, Problem) else _anew(known)


@cache
def _remembered(overrides: tuple[str, ...]) -> DictConfig | Problem:
    return _composed(list(overrides))


def _anew(known: DictConfig) -> DictConfig:
    """A copy whose directory and time are those of now."""
    from omegaconf import OmegaConf, read_write

    copy = deepcopy(known)
    OmegaConf.clear_cache(copy)
    with read_write(copy.hydra):
        copy.hydra.runtime.cwd = str(Path.cwd())
    return copy


def _composed(overrides: list[str]) -> DictConfig | Problem:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _outside_of_hydra(), hydra.initialize_config_dir(str(conf_dir()), job_name="sweepvi", **version_base()):
            composed = hydra.compose("config", overrides=overrides, return_hydra_config=True)
            _ = composed.hydra.mode, str(composed.hydra.run.dir), str(composed.hydra.sweep.dir)
            return composed
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        return Problem("configuration", said(error))


@contextmanager
def _outside_of_hydra() -> Iterator[None]:
    """Inside, Hydra is not running a job, though one may be: it refuses to compose within one."""
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance()
    before, running.hydra = running.hydra, None
    try:
        yield
    finally:
        running.hydra = before


def said(error: BaseException) -> str:
    """Hydra's or OmegaConf's message in one line; its cause says what, it says where."""
    errors = [error] if error.__cause__ is None else [error, error.__cause__]
    lines = [line.strip() for one in errors for line in str(one).splitlines()]
    return " ".join(
        line for line in lines if line and not line.startswith(("full_key:", "object_type=", "reference_type="))
    )
