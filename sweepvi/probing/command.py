"""``python -m sweepvi.probe``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi import __version__, catalogue
from sweepvi.cli import FAILED, FINISHED, INTERRUPTED, status_of
from sweepvi.command import Command, parse
from sweepvi.errors import Problem, collected, raise_if

if TYPE_CHECKING:
    from sweepvi.probing.place import Place
    from sweepvi.probing.result import ProbeResult
    from sweepvi.recipe import Recipe

USAGE = """\
usage: python -m sweepvi.probe [group=option ...] [group.key=value ...] [word=value ...] [flags]

Measures mean, noise and cost of the gradients of several estimators at the same parameters, and says which gives the
least variance per second. Groups and keys choose the fit, as for python -m sweepvi.

  python -m sweepvi.probe                         the default fit, at its start
  python -m sweepvi.probe model=eight_schools estimators=trace,stl particles=1,10
  python -m sweepvi.probe at=DIR                  the fit of the run in DIR, at its end
  python -m sweepvi.probe rerun=DIR               the same fit, at its start
  python -m sweepvi.probe 'estimators=[trace,{name: trace_graph,baselines:{z:decaying}}]'

words:
  estimators=NAME,...  what is compared; every estimator that fits model and guide, if none is named
  particles=N,...      draws averaged in each gradient (1,10); each makes a row for every estimator
  draws=N              gradients measured for each row (200)
  warmup=N             gradients computed before, so that baselines settle (50)
  at=DIR               at the end of the run in DIR; its configuration is the fit's, unless rerun= gives another
  folder=DIR           where probe.json, probe.csv and probe.png go (probes/DATE/TIME)

flags:
  --config-dir DIR     a folder with options of your own (DIR/optimizer/mine.yaml)
  -q, --quiet          print nothing but errors
  --components         every option with its keys, defaults and meanings
  --version            print the version
  -h, --help           print this

exit status: 0 measured; 1 no row has numbers; 2 bad input, nothing written; 130 interrupted, whole rows saved."""

FOLDERS = ("at", "folder")
WORDS = ("estimators", "particles", "draws", "warmup", *FOLDERS)


def main(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status. What is wrong with the input is said in a line or a list."""
    return status_of(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    own = [text for text in arguments if "=" in text and text.partition("=")[0] in WORDS]
    command = parse([text for text in arguments if text not in own])
    if command.show:
        texts = {"help": lambda: USAGE, "components": catalogue.components, "version": lambda: __version__}
        print(texts[command.show]())
        return FINISHED
    values, unreadable = _read(own)
    command.problems += [*unreadable, *_misplaced(command)]
    folder = values.pop("folder", None) or Path(datetime.now().strftime("probes/%Y-%m-%d/%H-%M-%S"))
    result = _measured(command, values, folder)
    if result.rows:
        result.save(folder)
    if not command.quiet:
        _tell(result, folder)
    if result.status == "interrupted":
        return INTERRUPTED
    return FINISHED if any(row.total is not None for row in result.rows) else FAILED


def _read(own: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """The values of the probe's own words, and what cannot be read; ``a,b`` is a list, as ``[a,b]`` is."""
    from sweepvi.config.overrides import parsed

    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for text in own:
        word, _, value = text.partition("=")
        if word in FOLDERS:
            values[word] = Path(value)
            problems += [] if value else [Problem(text, f"name a folder: {word}=DIR")]
            continue
        override = parsed(text)
        if override is not None and override.is_sweep_override():
            override = parsed(f"{word}=[{value}]")
        if override is None or not value or not _is_plain(override.value()):
            problems.append(Problem(text, f"cannot be read; write {word}=value or {word}=value,value"))
        else:
            values[word] = override.value()
    return values, problems


def _is_plain(value: Any) -> bool:
    """Whether a value has no ``range(…)``, ``choice(…)`` or ``glob(…)`` in it."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def _misplaced(command: Command) -> list[Problem]:
    """What goes with ``python -m sweepvi`` only."""
    problems = [
        Problem(text, "a probe runs no Hydra job; it is saved in folder=DIR")
        for text in command.overrides
        if text.lstrip("+~").startswith(("hydra.", "hydra/"))
    ]
    if command.hydra_flags:
        problems.append(Problem(" ".join(command.hydra_flags), "these flags go with python -m sweepvi only"))
    if command.multirun:
        problems.append(Problem("-m", "a probe is of one fit; compare estimators by estimators=a,b"))
    if command.resume:
        problems.append(Problem("resume", "nothing is resumed here; at=DIR measures at the end of that run"))
        command.resume = None
    return problems


def _measured(command: Command, values: dict[str, Any], folder: Path) -> ProbeResult:
    from sweepvi.probing.api import Asked, teller
    from sweepvi.probing.candidates import Plan
    from sweepvi.probing.result import occupied

    at = values.pop("at", None)
    command.rerun = command.rerun or at
    given = {"estimators": None, "particles": Plan().particles, "draws": Plan().draws, "warmup": Plan().warmup}
    [asked, recipe, place, _], problems = collected(
        lambda: Asked.of(**{**given, **values}),
        lambda: _recipe(command),
        lambda: _place(at),
        lambda: raise_if(occupied(folder)),
    )
    raise_if(problems)
    return asked.answered(recipe, place, teller(not command.quiet))


def _recipe(command: Command) -> Recipe:
    from sweepvi import preflight, recipe

    made, _ = preflight.composed(command)
    return recipe.build(made.config)


def _place(at: Path | None) -> Place:
    from sweepvi.probing.api import place_of

    return place_of(at)


def _tell(result: ProbeResult, folder: Path) -> None:
    from sweepvi.telling import shown

    print(result)
    if result.rows:
        print(f"\nsaved in {shown(folder)}")
