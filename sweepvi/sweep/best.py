"""The best of a sweep as configurations that run: ``best.yaml``, ``pareto/NUMBER.yaml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sweepvi import telling
from sweepvi.files import write_atomically
from sweepvi.registry import GIVEN
from sweepvi.sweep.records import StudyRecord, TrialRecord

BEST, PARETO = "best.yaml", "pareto"


def write(
    record: StudyRecord, folder: Path, configuration: Callable[[TrialRecord], Mapping[str, Any]]
) -> dict[int, str]:
    """Write the configuration of the best trial, or of each on the Pareto front; returns by trial how each is run.

    What an earlier part of the same sweep has left there and is not the best any more is removed.

    Args:
        record: The sweep.
        folder: Its folder.
        configuration: The complete configuration of a trial.

    """
    if len(record.objectives) > 1:
        files = {trial.number: folder / PARETO / f"{trial.number}.yaml" for trial in record.pareto}
    else:
        files = {} if record.best is None else {record.best.number: folder / BEST}
    for left in {folder / BEST, *(folder / PARETO).glob("*.yaml")} - set(files.values()):
        left.unlink(missing_ok=True)
    trials = {trial.number: trial for trial in record.trials}
    configs = {number: configuration(trials[number]) for number in files}
    for number, path in files.items():
        write_atomically(path, config_text(record, trials[number], configs[number], path))
    return {number: running(path, configs[number]) for number, path in files.items()}


def config_text(record: StudyRecord, trial: TrialRecord, config: Mapping[str, Any], path: Path) -> str:
    """The configuration of a trial as YAML, with its score and the command that runs it."""
    # Agents that share a study have folders of their own, and the same file in each.
    shown = Path(path.name) if record.agents else path
    lines = [f"Trial {trial.number} of a sweep: {score(record, trial)}", f"Run it: {running(shown, config)}"]
    return "".join(f"# {line}\n" for line in lines) + OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def running(path: Path, config: Mapping[str, Any]) -> str:
    """The command that runs a configuration; the paths of a model or guide of one's own are part of it.

    Objects that a Python call was given cannot be named in a command; the answer says so.
    """
    given = [group for group, node in config.items() if isinstance(node, Mapping) and node.get("name") == GIVEN]
    if given:
        return f"in Python, with the {' and the '.join(given)} that the sweep was given"
    return telling.command("rerun", path, dict(config))


def score(record: StudyRecord, trial: TrialRecord) -> str:
    """What a trial reached, when it was chosen: ``ELBO -1064.23 ± 0.07``; several objectives with commas."""
    errors = [trial.value_se, *(None for _ in record.objectives)]
    named = zip(record.objectives, trial.values or (), errors, strict=False)
    return ", ".join(f"{title(name)} {figures(value, error)}" for name, value, error in named) or "no score"


TITLES = {"elbo": "ELBO", "k_hat": "k̂", "seconds": "seconds", "heldout": "held-out log density"}


def title(objective: str) -> str:
    """An objective, as it is called in text."""
    return TITLES.get(objective, objective)


def figures(value: float | None, error: float | None = None) -> str:
    """A number with its standard error: ``-1064.23 ± 0.07``; four digits where two decimals would not show them."""
    if value is None:
        return "none"
    text = f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"
    if error is None:
        return text
    return f"{text} ± {error:.2f}" if error >= 0.01 else f"{text} ± {error:.1g}"
