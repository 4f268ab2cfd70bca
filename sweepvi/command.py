"""A command line, taken apart."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from sweepvi.errors import ConfigError, Problem

HOW = "settings are given as group.key=value, see --help"


@dataclass
class Command:
    """What a command line asks for."""

    overrides: list[str]
    extra: Path | None
    multirun: bool
    quiet: bool
    show: str | None
    rerun: Path | None = None
    resume: Path | None = None
    cfg: bool = False
    arguments: tuple[str, ...] = ()
    """As they were given."""
    hydra_flags: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([Problem("command line", f"{message}; {HOW}")])


def parse(arguments: Sequence[str]) -> Command:
    """Take a command line apart; what is wrong with it is in the command's ``problems``, or a ``ConfigError``."""
    parser = _Parser(prog="python -m sweepvi", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--package", "-p")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--info", "-i", nargs="?", const="all")
    for flag in ("--help -h", "--components", "--version", "--multirun -m", "--quiet -q", "--resolve"):
        parser.add_argument(*flag.split(), action="store_true")
    for flag in ("--hydra-help", "--shell-completion -sc"):
        parser.add_argument(*flag.split(), action="store_true")
    found, strange = parser.parse_known_intermixed_args(list(arguments))
    shown = [name for name in ("help", "components", "version") if getattr(found, name)]
    command = Command([], found.config_dir, found.multirun, found.quiet, shown[0] if shown else None)
    command.arguments = tuple(arguments)
    command.problems = [Problem(word, f"no such flag; {HOW}") for word in strange]
    if found.cfg or found.info or found.hydra_help or found.shell_completion:
        command.cfg = bool(found.cfg)
        command.hydra_flags = [word for word in arguments if word not in (*found.overrides, "-q", "--quiet")]
    for text in found.overrides:
        key, _, value = text.partition("=")
        if key not in ("rerun", "resume"):
            command.overrides.append(text)
        elif not value:
            command.problems.append(Problem(text, f"name a run folder: {key}=DIR"))
        else:
            setattr(command, key, Path(value))
    if command.rerun and command.resume:
        command.problems.append(Problem("rerun, resume", "give one of them"))
    if command.multirun and command.resume:
        command.problems.append(Problem("resume", "resumes one run; it does not go with -m"))
    if command.resume and command.resume.is_file():
        command.problems.append(Problem.of("resume", str(command.resume), "is a file; name the run's folder"))
    return command
