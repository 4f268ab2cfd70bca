"""Python's way into sweeps: ``sweepvi.tune``."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweepvi.sweep.live import View, view_for
from sweepvi.sweep.python import plan_from_python
from sweepvi.sweep.running import SweepResult, run


def tune(
    model: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    space: Mapping[str, Any] | None = None,
    n_trials: int | None = None,
    sweep: str | Mapping[str, Any] = "default",
    workers: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    progress: bool | View = False,
    guide: Any = None,
    estimator: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    partition: Any = None,
    engine: str | Mapping[str, Any] | None = None,
    **settings: Any,
) -> SweepResult:
    """Search settings of a fit: a study of Optuna's, its trials run as lanes in worker processes.

    Args:
        model: as for :func:`sweepvi.fit`, like the next two; functions and objects go to workers by cloudpickle.
        args: positional arguments of model and guide.
        kwargs: keyword arguments of model and guide.
        space: what is searched, ``{"optimizer": ["adam", "sgd"], "optimizer.lr": "tag(log,interval(1e-4,0.1))"}``:
            a list of values, or text in the grammar of the command line. Beside it goes what a ready sweep searches.
        n_trials: trials in all; None runs every combination of lists once.
        sweep: a ready one, ``"auto"``; or keys of the ``sweep`` group: ``{"sampler": "random", "seed": 1}``, with
            ``"name"`` of a ready one.
        workers: keys of the ``workers`` group: ``{"cpus": 2}``.
        folder: of the sweep; where there is one already, it goes on. None saves nothing.
        progress: show how it goes, or tell a view.
        guide: as for :func:`sweepvi.fit`, like the rest: what is not searched. None of these is a choice: a ready
            sweep may make its own.
        estimator: gradient estimator.
        optimizer: update rule.
        scheduler: learning-rate schedule.
        partition: which parameters are optimized together.
        engine: what runs the fits.
        **settings: keys of the ``engine`` group: ``steps``, ``seed``, ….

    Returns:
        The best trial, all trials as a table, and Optuna's study.

    Raises:
        ConfigError: everything wrong with the arguments, or the model's own error on its data.
        SweepviError: workers do not start, or the disk is full; what was computed before is in the folder.

    """
    own = {"name": engine} if isinstance(engine, str) else dict(engine or {})
    chosen = {"guide": guide, "estimator": estimator, "optimizer": optimizer}
    chosen |= {"scheduler": scheduler, "partition": partition, "engine": {**own, **settings} or None}
    plan = plan_from_python(
        model,
        args,
        kwargs,
        space=space or {},
        sweep={**({} if n_trials is None else {"n_trials": n_trials}), **_keys_of(sweep)},
        workers=workers,
        **{group: node for group, node in chosen.items() if node is not None},
    )
    view = progress if isinstance(progress, View) else view_for(progress)
    if folder is not None:
        return run(plan, Path(folder), view)
    with tempfile.TemporaryDirectory(prefix="sweepvi-") as place:
        return run(plan, Path(place), view)


def _keys_of(sweep: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": sweep} if isinstance(sweep, str) else sweep
