"""Overrides: reading what the command line says, one by one; writing values in Hydra's grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException

from sweepvi.config.locate import CODE_KEYS, SELECTIONS, groups, options
from sweepvi.errors import Problem, listed, unknown
from sweepvi.refused import refusal


def parsed(text: str) -> Override | None:
    """An override, or None if it is none."""
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):
        return None


class Overrides:
    """What a command line chooses and sets; a problem for each override that cannot be meant.

    Attributes:
        selected: group → option; None chooses none, which is what the shipped configuration does.
        values: ``group.key`` → value.
        hydra: overrides of Hydra's own configuration, as text.
        deleted: deletions of keys, as text.
        texts: every override that is no problem, as Hydra can take it.
        problems: the rest.

    """

    def __init__(self, texts: list[str], extra: Path | None) -> None:
        self.selected: dict[str, str | None] = {}
        self.values: dict[str, Any] = {}
        self.hydra: list[str] = []
        self.deleted: list[str] = []
        self.texts: list[str] = []
        self.problems: list[Problem] = []
        self._extra = extra
        self._groups = groups()
        for text in texts:
            self._read(text)

    def _read(self, text: str) -> None:
        override = parsed(text)
        if override is None:
            self._refuse(text, "cannot be read; write group=option or group.key=value")
            return
        key = override.key_or_group
        group = key.partition(".")[0]
        if override.is_sweep_override():
            known = options(group, self._extra)
            what = (
                f"matches no option; valid: {listed(known)}"
                if isinstance(override.value(), Glob)
                else "has several values"
            )
            self._refuse(text, f"{what}; one fit for each of several is -m with a list: a,b,c")
        elif group == "hydra" or key.startswith("hydra/"):
            self._take_hydra(text)
        elif override.package is not None:
            self._refuse(text, f"a group keeps its place; choose with {key}=option")
        elif key in self._groups:
            self._select(text, key, None if override.is_delete() else override.value())
        elif group in self._groups and group not in SELECTIONS:
            self._set(text, key, override)
        else:
            self._refuse(
                text,
                f"choose with {group}=option; valid: {listed(options(group, self._extra))}"
                if group in SELECTIONS
                else unknown("config group", group, self._groups),
            )

    def _take_hydra(self, text: str) -> None:
        key, _, value = text.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and not value.strip("'\" "):
            self._refuse(text, "name a folder")
            return
        self.hydra.append(text)
        self.texts.append(text)

    def _select(self, text: str, group: str, option: Any) -> None:
        known = options(group, self._extra)
        if option is None and group in SELECTIONS:
            self.selected[group] = None
        elif not isinstance(option, str):
            self._refuse(text, f"must name one option: {listed(known)}")
        elif option not in known:
            self.problems.append(Problem.of(group, option, refusal(group, option) or unknown(group, option, known)))
        else:
            self.selected[group] = option
            self.texts.append(f"{group}={option}")

    def _set(self, text: str, key: str, override: Override) -> None:
        group, _, name = key.partition(".")
        if name == "name":
            self._refuse(text, f"choose with {group}=option; valid: {listed(options(group, self._extra))}")
        elif override.is_delete():
            self.deleted.append(text)
            self.texts.append(text)
        else:
            self.values[key] = override.value()
            self.texts.append(forced(text))

    def _refuse(self, text: str, message: str) -> None:
        self.problems.append(Problem(text, message))


def forced(text: str) -> str:
    """An override of a key, made one that adds the key too; a choice of option as it is.

    Whether the key exists is the registry's to say, with all that is valid.
    """
    key = text.partition("=")[0]
    return "++" + text.lstrip("+") if "." in key and key[0] != "~" and not key.startswith("hydra.") else text


def base_texts(base: Mapping[str, Any], replaced: Mapping[str, Any]) -> list[str]:
    """An earlier run's configuration as overrides, but for the groups in ``replaced`` and for Python paths."""
    texts = []
    for group, node in base.items():
        if group in replaced:
            continue
        texts.append(f"{group}={node['name']}")
        texts += [
            f"++{group}.{key}={quoted(value)}"
            for key, value in node.items()
            if key != "name" and (value is None or key not in CODE_KEYS.get(group, ()))
        ]
    return texts


def quoted(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{quoted(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(quoted, value)) + "]"
    return QuotedString(str(value), Quote.single).with_quotes()


def _key(name: str) -> str:
    """A key of a mapping in Hydra's grammar, which has no quotes there, but escapes."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", name)
