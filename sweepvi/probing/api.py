"""Python's way in: ``sweepvi.probe``. The command line goes through the same functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sweepvi import registry
from sweepvi.api import Component, recipe_from
from sweepvi.engine import Checkpoint
from sweepvi.errors import CheckpointError, ConfigError, Problem, collected, raise_if, unique
from sweepvi.estimators import Estimator
from sweepvi.guides.guide import Program
from sweepvi.keys import construct
from sweepvi.probing.candidates import LeftOut, Plan, Specification, chosen, everything, words_of
from sweepvi.probing.place import Place
from sweepvi.probing.result import ProbeResult
from sweepvi.probing.run import run
from sweepvi.recipe import Recipe
from sweepvi.results import FitResult
from sweepvi.run_folder import CHECKPOINT
from sweepvi.telling import shown


def probe(
    model: Program | Component | Recipe,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    guide: Component | Program | None = None,
    estimators: Specification | Iterable[Specification] | None = None,
    particles: int | Iterable[int] = (1, 10),
    draws: int = 200,
    warmup: int = 50,
    at: FitResult | str | Path | None = None,
    progress: bool | Callable[[str], None] = False,
    **settings: Any,
) -> ProbeResult:
    """Measure mean, noise and cost of the gradients of several estimators at the same parameters.

    Args:
        model: as for ``sweepvi.fit``; or a whole ``sweepvi.recipe.Recipe``, with nothing of the next three and no
            settings.
        args: positional arguments of model and guide.
        kwargs: keyword arguments of model and guide.
        guide: as for ``sweepvi.fit``; ``auto_normal`` if none is given.
        estimators: names, mappings or ``Estimator`` objects, or one of them. A mapping that has ``num_particles`` is
            measured with that number only. None is every registered estimator that fits model and guide.
        particles: numbers of draws averaged in each gradient; each makes a row for every estimator.
        draws: gradients measured for each row, at least 2; 30 for means to be compared.
        warmup: gradients computed before, in which baselines settle; all other parameters stay where they are.
        at: where the parameters are: None is where a fit starts; a result, or a run folder, is where that ended.
        progress: print a line when a row begins, or call a function with it.
        **settings: keys of the ``engine`` group: ``seed``, ``dtype``, ``device``, ….

    Returns:
        The rows. Gradients that are not finite are a row's status; so is an exception of an estimator. After Ctrl-C,
        the rows that are whole.

    Raises:
        ConfigError: everything wrong with the arguments, or the model's own error on its data.

    """
    [asked, recipe, place], problems = collected(
        partial(Asked.of, estimators, particles, draws, warmup),
        partial(_recipe, model, args, kwargs, guide, settings),
        partial(place_of, at),
    )
    raise_if(problems)
    return asked.answered(recipe, place, progress if callable(progress) else teller(progress))


class Asked:
    """What is to be measured, checked as far as it can be without a model."""

    def __init__(self, specifications: list[Specification] | None, plan: Plan) -> None:
        self.plan = plan
        self._chosen = None if specifications is None else chosen(specifications, plan.particles)

    @classmethod
    def of(cls, estimators: Any, particles: Any, draws: Any, warmup: Any) -> Asked:
        """From :func:`probe`'s arguments; ``ConfigError`` with all that is wrong with them."""
        values = {"particles": _listed(particles), "draws": draws, "warmup": warmup}
        plan, problems = construct(Plan, values, "")
        problems = [replace(problem, key=problem.key.lstrip(".")) for problem in problems]
        specifications = None if estimators is None else _listed(estimators)
        if specifications == []:
            problems.append(Problem("estimators", f"name at least one of {', '.join(registry.names('estimator'))}"))
        made, wrong = collected(lambda: cls(specifications, plan or Plan()))
        raise_if([*problems, *wrong])
        return made[0]

    def answered(self, recipe: Recipe, place: Place, tell: Callable[[str], None]) -> ProbeResult:
        """Measure; ``ConfigError`` if nothing that is asked for runs, or something that is named does not."""
        candidates, left_out = self._rows(recipe.estimator)
        if not candidates:
            raise_if(unique(Problem(words_of(entry.estimator, entry.particles), entry.reason) for entry in left_out))
        return run(recipe, candidates, left_out, self.plan, place, self._chosen is not None, tell)

    def _rows(self, configured: Estimator) -> tuple[list[Estimator], list[LeftOut]]:
        return self._chosen or everything(configured, self.plan.particles)


def place_of(at: FitResult | str | Path | None) -> Place:
    """The parameters that are meant; ``ConfigError`` if a run has none."""
    if at is None:
        return Place("at the start of the fit")
    if isinstance(at, FitResult):
        if at.runnable is None:
            raise ConfigError([Problem("at", "the result was loaded without its model; give FitResult.load the model")])
        whose, snapshot = "a fit", at.runnable.snapshot
    elif isinstance(at, str | Path):
        try:
            whose, snapshot = shown(Path(at)), Checkpoint(Path(at) / CHECKPOINT, None).load()
        except CheckpointError as error:
            raise ConfigError([Problem.of("at", str(at), str(error))]) from error
    else:
        raise ConfigError([Problem.of("at", at, "must be a result of sweepvi.fit or a run folder")])
    return Place(f"at the end of {whose} ({snapshot.meta['step']:,} steps)", snapshot)


def teller(progress: bool) -> Callable[[str], None]:
    """What prints a line to standard error, or does nothing."""
    return partial(print, file=sys.stderr, flush=True) if progress else lambda line: None


def _recipe(model: Any, args: Any, kwargs: Any, guide: Any, settings: Mapping[str, Any]) -> Recipe:
    if not isinstance(model, Recipe):
        groups = {"estimator": "trace", "optimizer": "clipped_adam", "scheduler": "constant", "partition": "single"}
        engine = {"name": "eager", **settings}
        return recipe_from(
            model, args, kwargs, guide="auto_normal" if guide is None else guide, engine=engine, **groups
        )
    given = {"args": args, "kwargs": kwargs, "guide": guide, **settings}
    wrong = [key for key, value in given.items() if value is not None and value != ()]
    raise_if([Problem(key, "the recipe has that already") for key in wrong])
    return model


def _listed(value: Any) -> list[Any]:
    """What is given once or in a collection, as a list."""
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping | Estimator):
        return list(value)
    return [value]
