"""How a run is told to its user, in a few lines of text."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepvi.config import CODE_KEYS

if TYPE_CHECKING:
    from sweepvi.results import FitResult


def one(result: FitResult, folder: Path) -> str:
    """A run's end: how it went, where it is, and the command that comes next."""
    lines = [
        f"{result.status}: {result.message}"
        if result.message
        else f"{result.status}: ELBO {elbo(result)}{_per_datum(result)}"
    ]
    speed = f" ({result.steps / result.seconds:,.0f} steps/s)" if result.seconds > 0 else ""
    lines.append(f"{result.steps:,} steps in {result.seconds:.1f} s{speed}")
    if result.ranks_agree is not None:
        same = "equal to the last bit" if result.ranks_agree else "NOT EQUAL at the end: do not use this result"
        lines.append(f"{result.world_size} ranks, {same}")
    if result.stopped:
        lines.append(result.stopped)
    lines += _attempts(result)
    if result.restarts:
        lines.append(_restarts(result))
    if result.skipped:
        lines.append(f"{len(result.skipped)} steps were left out, where something was not finite")
    if result.verdict is not None and result.status == "finished":
        lines.append(str(result.verdict))
    lines += [f"note: {note}" for note in result.notes]
    if result.posterior is not None and len(result.posterior):
        lines += ["", result.posterior.text(), ""]
    stopped = "interrupted" in (result.status, *(attempt["status"] for attempt in result.attempts))
    verb = "resume" if stopped else "rerun"
    lines.append(f"saved in {shown(folder)}")
    lines.append(f"{verb} with: {command(verb, folder, result.config, result.world_size)}")
    return "\n".join(lines)


def elbo(result: FitResult) -> str:
    """The ELBO with its standard error: ``-1063.82 ± 0.06``."""
    if result.elbo is None:
        return "not computed"
    return f"{result.elbo:.2f}" + (f" ± {result.elbo_se:.2f}" if result.elbo_se is not None else "")


def _attempts(result: FitResult) -> list[str]:
    """What ``preset=auto`` has tried, a line each; nothing of other fits."""
    chosen = [attempt for attempt in result.attempts if attempt.get("elbo") == result.elbo is not None]
    return [
        f"preset {attempt['settings']}: {_attempt(attempt)}" + (" ← this" if attempt in chosen[:1] else "")
        for attempt in result.attempts
    ]


def _attempt(attempt: dict[str, Any]) -> str:
    if attempt["status"] != "finished":
        return f"{attempt['status']}: {attempt['message']}"
    value = f"{attempt['elbo']:.2f}" if attempt["elbo"] is not None else "not finite"
    k_hat = f", k-hat {attempt['k_hat']:.2f}" if attempt["k_hat"] is not None else ""
    return f"ELBO {value}{k_hat}, trust {attempt['trust']}, {attempt['seconds']:.1f} s"


def _restarts(result: FitResult) -> str:
    """How many restarts there were and what they say of each other."""
    count = len(result.restarts)
    line = f"best of {count} restarts (seed {result.seed}); {result.agreeing} of them agree in the ELBO"
    known = {name: value for name, value in result.r_hat.items() if not math.isnan(value)}
    if not known:
        return line
    worst = max(known, key=lambda name: known[name])
    return f"{line}; R-hat at most {known[worst]:.3g} ({worst})"


def _per_datum(result: FitResult) -> str:
    """Nothing where the data is one event, such as a time series, of which the ELBO itself says as much."""
    each, size = result.elbo_per_datum, result.data_size
    return f", {each:.4g} per datum (of {size:,})" if each is not None and size is not None and size > 1 else ""


def command(verb: str, folder: Path, config: dict[str, Any], world_size: int = 1) -> str:
    """The command that repeats or resumes a run; a Python path is part of it, because a file alone never runs code."""
    paths = [
        f"{group}.{key}={config[group][key]}"
        for group, keys in CODE_KEYS.items()
        for key in keys
        if config[group].get(key) is not None
    ]
    start = _start(config.get("distributed", {}).get("name", "none"), world_size)
    return shlex.join([*start, "-m", "sweepvi", f"{verb}={shown(folder)}", *paths])


def _start(distributed: str, world_size: int) -> list[str]:
    """What starts as many processes on one machine."""
    if distributed == "none":
        return ["python"]
    if distributed == "horovod":
        return ["horovodrun", "-np", str(world_size), "--gloo", "python"]
    return ["torchrun", "--standalone", "--nproc_per_node", str(world_size)]


def shown(path: Path) -> str:
    """A path as one would type it from here."""
    resolved, here = path.resolve(), Path.cwd()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else str(resolved)
