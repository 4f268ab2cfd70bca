"""What can be chosen, as text: the help page, and every component with its keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweepvi import config, registry
from sweepvi.keys import Keyed, KeySpec, keys_of

USAGE = """\
usage: python -m sweepvi [group=option ...] [group.key=value ...] [flags]

Fits a Bayesian model by stochastic variational inference, and saves the run in a folder.

  python -m sweepvi                                           radon, everything by rule
  python -m sweepvi optimizer=adam optimizer.lr=0.01          another optimizer, another value
  python -m sweepvi model=custom model.path=mine.py:model     your own model
  python -m sweepvi -m optimizer=adam,sgd engine.seed=0,1     every combination, one fit each
  python -m sweepvi -m optimizer=adam,sgd sweep.n_trials=50   a search; sweep=quick and others are ready ones
  python -m sweepvi rerun=DIR                                 the run in DIR again, with overrides if any
  python -m sweepvi resume=DIR                                the run in DIR, from its last checkpoint

groups and options:
{groups}

flags:
  --components         every option with its keys, defaults and meanings
  --config-dir DIR     a folder with options of your own (DIR/optimizer/mine.yaml)
  -m, --multirun       a sweep: every combination of values a,b, or as many trials as sweep.n_trials says
  -q, --quiet          print nothing but errors
  --cfg {{job,hydra,all}}, --info, --hydra-help, --shell-completion   as in any Hydra program
  --version            print the version
  -h, --help           print this

exit status: 0 finished; 1 diverged or failed; 2 bad input, nothing written; 130 interrupted, saved."""


def usage() -> str:
    """The help page; needs neither torch nor Hydra."""
    width = max(map(len, config.groups())) + 2
    lines = [f"  {group:<{width}}{', '.join(config.options(group))}" for group in config.groups()]
    return USAGE.format(groups="\n".join(lines))


def components() -> str:
    """Every group, option, key, valid value, default and meaning; imports every component."""
    fits = [line for group in registry.GROUPS for line in _group_lines(group)]
    sweeps = [line for group in config.SWEEPING for line in _sweeping_lines(group)]
    return "\n".join(fits + sweeps + [line for group in config.SELECTIONS for line in _selection_lines(group)])


def _sweeping_lines(group: str) -> Iterator[str]:
    """The options of a group that says how many fits are run, and the keys that all of them have."""
    from sweepvi.sweep.settings import SweepSettings, WorkerSettings

    yield from _selection_lines(group)
    yield from _key_lines(keys_of({"sweep": SweepSettings, "workers": WorkerSettings}[group]))
    yield ""


def _selection_lines(group: str) -> Iterator[str]:
    """The options of a group that selects others', with the comment that opens each file."""
    yield group
    for name in config.options(group):
        text = (config.conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
        comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and "@package" not in line]
        yield f"  {name} - {' '.join(comments)}"


def _group_lines(group: str) -> Iterator[str]:
    yield group
    for row in registry.rows(group):
        yield f"  {row.name} - {row.meaning()}"
        yield from _key_lines(row.specs())
    yield ""


def _key_lines(specs: Iterable[KeySpec]) -> Iterator[str]:
    for name, key in flat_keys(specs):
        yield f"    {name:<22} {_default(key):<14} {key.key.meaning} [{key.expects()}]"


def flat_keys(specs: Iterable[KeySpec], prefix: str = "") -> Iterator[tuple[str, KeySpec]]:
    """Keys, and keys of those that have some, by their full names."""
    for key in specs:
        if isinstance(key.default, Keyed) and not key.key.component:
            yield from flat_keys(keys_of(type(key.default)), f"{prefix}{key.name}.")
        else:
            yield f"{prefix}{key.name}", key


def _default(key: KeySpec) -> str:
    return "(required)" if key.required else yaml_text(registry.plain(key.default, key.key.component))


def yaml_text(value: Any) -> str:
    """A value as it stands in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(yaml_text, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_text(entry)}" for key, entry in value.items()) + "}"
    return str(value)
