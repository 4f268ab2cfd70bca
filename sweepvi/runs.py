"""A recipe, run, with the folder that it leaves."""

from __future__ import annotations

from pathlib import Path

from sweepvi import engine as engines
from sweepvi import recipe
from sweepvi.engine import Checkpoint, Observer
from sweepvi.errors import DivergedError, raise_if
from sweepvi.files import write_atomically
from sweepvi.provenance import provenance
from sweepvi.recipe import Recipe
from sweepvi.report import draw_losses
from sweepvi.results import FitResult, from_outcome, occupied
from sweepvi.run_folder import CHECKPOINT, CONFIG, config_text


def run(made: Recipe, folder: Path | None, observer: Observer | None = None, resume: bool = False) -> FitResult:
    """Run a recipe, with its folder if it has one; the result is saved there. Raises as ``sweepvi.fit`` does."""
    if folder is None or not made.distributed.leads:
        result = from_outcome(made, engines.fit(made, observer), provenance())
    else:
        result = _run_in(folder, made, observer, resume)
    raise_if_demanded(made, result)
    return result


def raise_if_demanded(made: Recipe, result: FitResult) -> None:
    """``DivergedError`` of a diverged fit under ``on_nonfinite="raise"``."""
    if result.status == "diverged" and made.settings.on_nonfinite == "raise":
        raise DivergedError(result.message, result)


def _run_in(folder: Path, made: Recipe, observer: Observer | None, resume: bool) -> FitResult:
    checkpoint = Checkpoint(folder / CHECKPOINT, recipe.fingerprint(made))
    resume = resume and checkpoint.path.exists()
    if not resume:
        raise_if(occupied(folder))

    def write_config() -> None:
        write_atomically(folder / CONFIG, config_text(made.config))

    result = from_outcome(made, engines.fit(made, observer, checkpoint, resume, write_config), provenance())
    result.write(folder)
    draw_losses(folder)
    return result
