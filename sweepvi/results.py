"""The result of a fit: numbers, parameters, a guide that runs; saved to a folder and loaded from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save
from torch import Tensor

from sweepvi.diagnostics import elbo_score
from sweepvi.engine import Checkpoint, Outcome, Snapshot, restored
from sweepvi.engine.environment import environment
from sweepvi.engine.full_data import coverage
from sweepvi.engine.outcome import Restart
from sweepvi.engine.posterior_draws import LOG_WEIGHT, posterior_draws
from sweepvi.errors import Problem as Complaint
from sweepvi.errors import SweepviError, raise_if
from sweepvi.estimators import Trace
from sweepvi.evidence import evidence_of
from sweepvi.files import write_atomically
from sweepvi.guides.custom import GivenGuide
from sweepvi.guides.guide import Program
from sweepvi.optim import ClippedAdamRule
from sweepvi.partition import Single
from sweepvi.posterior import Posterior
from sweepvi.problem import Problem, given_problem
from sweepvi.programs import Fitted, FittedProgram
from sweepvi.recipe import Recipe, build, config_hash, fingerprint
from sweepvi.registry import GIVEN
from sweepvi.run_folder import (
    CHECKPOINT,
    CONFIG,
    LOSSES,
    PARAMS,
    POSTERIOR,
    RESULT,
    config_text,
    losses_text,
    read_losses,
)
from sweepvi.schedule import Constant
from sweepvi.settings import Settings
from sweepvi.stopping import Steps
from sweepvi.verdict import Verdict, judged


@dataclass(frozen=True)
class Runnable:
    """A fit's model and guide, with all that they need to run again, or on."""

    problem: Problem
    fitted: Fitted
    snapshot: Snapshot
    settings: Settings
    fingerprint: str


@dataclass
class FitResult:
    """What a fit found, and all that is needed to use it and to repeat it."""

    status: str
    """``finished``, ``diverged`` or ``interrupted``."""
    message: str
    """Why, when it did not finish: the step and the parameters."""
    losses: Tensor
    """Estimate of -ELBO at every step, in nats; float64, shape [steps]."""
    rates: dict[str, Tensor]
    """Effective step size at every step, by group of parameters (``all`` if there is one): float64, each [steps]."""
    params: dict[str, Tensor]
    """Parameters by name, constrained, on the CPU."""
    elbo: float | None
    """ELBO of the finished fit in nats, on fresh draws; None unless it finished.

    On all of the data, also where a fit's steps take minibatches of it; a note says so if that could not be.
    """
    elbo_se: float | None
    """Standard error of ``elbo``, in nats."""
    data_size: int | None
    """Entries of the model's observed sites, on all of the data; None unless the fit finished.

    A vector or image that one site observes as an event (``to_event``) counts once.
    """
    steps: int
    seconds: float
    """Time spent on steps; scoring not counted."""
    seed: int
    engine: str
    config: dict[str, Any]
    """The complete configuration, as plain data."""
    restarts: list[dict[str, Any]] = field(default_factory=list)
    """Of each fit from which this was chosen: ``seed``, ``status``, ``message``, ``elbo`` and ``elbo_se``; empty if
    there was one only."""
    r_hat: dict[str, float] = field(default_factory=dict)
    """The largest R-hat over the restarts of each parameter's entries, by name: above about 1.1, they disagree."""
    skipped: list[int] = field(default_factory=list)
    """Steps left out because something was not finite, from 1."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers must know."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """Under ``preset=auto``, what was tried, in order: settings, status, ELBO, k-hat, trust, seconds; else empty."""
    world_size: int = 1
    """Processes that the fit ran on: see docs/distributed.md."""
    ranks_agree: bool | None = None
    """Whether all of them have ended with equal parameters and optimizers, to the last bit; None if there was one."""
    stopped: str = ""
    """Under ``stop=auto``, why the fit was done when it ended: that it had settled, or what it was still to gain."""
    frozen: dict[str, Any] = field(default_factory=dict)
    """Of a fit on frozen noise by ``lbfgs`` or ``newton``, else empty; keys are

    * ``draws``: of the last objective;
    * ``end``: ``converged``, ``stuck``, ``max_draws`` or ``steps``;
    * ``gap``: about how many nats the result is short of the optimum, by what doublings of the draws have gained; None
      if there was none;
    * ``gradient_size``: the largest entry of the gradient at the end;
    * ``evaluations``: gradients of single draws;
    * ``mean_error``, with ``linear_response``: the largest standard error of the guide's means by the frozen draws, in
      standard deviations by linear response, unconstrained.
    """
    posterior: Posterior | None = None
    """Mean, standard deviation and quantiles of every scalar, plain and corrected by importance weights; None unless
    the fit finished, with ``posterior_draws=0``, and of models with too many."""
    verdict: Verdict | None = None
    """Whether to believe the fit, and why not; None of runs that were saved without one."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Versions and commit."""
    runnable: Runnable | None = field(default=None, repr=False)
    """What can be run; None if the result was loaded without its model."""

    @property
    def compiled_from(self) -> int | None:
        """The step from which machine code was used; None if it was not."""
        step = self.config["engine"].get("compiled_from")
        return None if step is None or step >= self.steps else step

    @property
    def elbo_per_datum(self) -> float | None:
        """``elbo`` divided by ``data_size``, in nats; None if either is unknown."""
        return None if self.elbo is None or not self.data_size else self.elbo / self.data_size

    @property
    def agreeing(self) -> int:
        """How many restarts have an ELBO within one nat of the best, or within four standard errors if that is more."""
        known = [(each["elbo"], each["elbo_se"] or 0.0) for each in self.restarts if each["elbo"] is not None]
        if not known:
            return 0
        best, error = max(known)
        return sum(best - elbo <= max(1.0, 4 * math.hypot(own, error)) for elbo, own in known)

    @property
    def guide(self) -> FittedProgram:
        """The guide with its fitted parameters; call it, or give it to ``pyro.infer.Predictive``."""
        return self._fitted("guide")

    @property
    def model(self) -> FittedProgram:
        """The model with its fitted parameters, for predictions with :attr:`guide`."""
        return self._fitted("model")

    def sample(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Posterior draws by site: latent variables and ``pyro.deterministic`` sites, each of shape [n, …].

        Plates that take minibatches in a fit's steps are whole here. Where that cannot be, the plate's own name gives
        the indices that each draw is of.

        Raises ``SweepviError`` if the result was loaded without its model.
        """
        return self._sampled(n, seed, weighed=False)[0]

    def to_arviz(self, draws: int = 1000, seed: int = 0) -> Any:
        """Posterior draws for ArviZ: an ``xarray.DataTree`` with one chain.

        Group ``posterior`` has the draws of :meth:`sample`; ``sample_stats`` has each one's ``log_weight``, log p(data,
        z) - log q(z), by which ``arviz_stats.psislw`` and the like can weigh them.

        Raises ``SweepviError`` if the package arviz-base is missing, or the result was loaded without its model.
        """
        try:
            from arviz_base import from_dict
        except ImportError as error:
            raise SweepviError("to_arviz needs the package arviz-base: pip install 'sweepvi[arviz]'") from error
        values, log_weights = self._sampled(draws, seed, weighed=True)
        posterior = {name: value[None].cpu().numpy() for name, value in values.items()}
        return from_dict({"posterior": posterior, "sample_stats": {"log_weight": log_weights[None].numpy()}})

    def _sampled(self, n: int, seed: int, weighed: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Draws by site, [n, …] each; and their log weights, float64, [n], or none."""
        run = self._demand_runnable()
        programs = run.fitted.programs
        with environment(run.settings, run.fitted.modules, run.fitted.state), run.fitted.late(), torch.no_grad():
            seen = coverage(programs, run.problem)
            draws = posterior_draws(programs, run.problem, n, seed, seen, weighed)
        return draws, draws.pop(LOG_WEIGHT, torch.empty(0, dtype=torch.float64)).cpu()

    @contextmanager
    def fitted(self) -> Iterator[None]:
        """Inside, your own networks have their fitted values; outside, those that they had before the fit."""
        with self._demand_runnable().fitted.active():
            yield

    def save(self, folder: str | Path) -> None:
        """Write a run folder; every file is whole or not there. See the README for what is in which.

        Raises ``ConfigError`` if the folder holds a run already: nothing computed is written over.
        """
        raise_if(occupied(Path(folder)))
        self.write(Path(folder))

    def write(self, folder: Path) -> None:
        """Write the files of a run folder, over what an earlier part of the same run has left there."""
        write_atomically(folder / CONFIG, config_text(self.config))
        write_atomically(folder / LOSSES, losses_text(self.losses, self.rates))
        if self.posterior is not None:
            write_atomically(folder / POSTERIOR, self.posterior.csv())
        else:
            (folder / POSTERIOR).unlink(missing_ok=True)
        write_atomically(folder / PARAMS, save({k: v.contiguous() for k, v in self.params.items()}))
        if self.runnable is not None:
            Checkpoint(folder / CHECKPOINT, self.runnable.fingerprint).save(self.runnable.snapshot)
        write_atomically(folder / RESULT, json.dumps(self.summary(), indent=2) + "\n")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: Program | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        guide: Program | None = None,
    ) -> FitResult:
        """Read a run folder.

        A shipped model and guide come from the folder's configuration. Your own must be given again, as to
        ``sweepvi.fit``, if the result is to :meth:`sample`: a file alone never runs code.

        Raises:
            SweepviError: if the folder holds no result.
            ConfigError: if the given model does not run on its data.
            CheckpointError: if the checkpoint is damaged, or does not fit the given model.

        """
        folder = Path(folder)
        result = _read(cls, folder)
        own = {"model": model, "guide": guide}
        known = all(given is not None or result.config[g]["name"] not in ("custom", GIVEN) for g, given in own.items())
        # A trial of a sweep is saved without what a continuation needs.
        if known and (folder / CHECKPOINT).exists():
            recipe = _recipe_again(result.config, model, args, kwargs, guide)
            # What stands for a schedule or partition of the user's own has other schedules; one process, other draws.
            foreign = any(result.config[group]["name"] == GIVEN for group in ("scheduler", "partition"))
            foreign = foreign or result.config.get("distributed", {}).get("name", "none") != "none"
            checkpoint = Checkpoint(folder / CHECKPOINT, None if foreign else fingerprint(recipe))
            snapshot = checkpoint.load()
            problem, fitted = restored(recipe, snapshot)
            result.runnable = Runnable(problem, fitted, snapshot, recipe.settings, checkpoint.fingerprint or "")
        return result

    def summary(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        return {
            **{key: getattr(self, key) for key in _SUMMARY},
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "compiled_from": self.compiled_from,
            "elbo_per_datum": self.elbo_per_datum,
            "steps_per_second": self.steps / self.seconds if self.seconds > 0 else None,
            "config_hash": config_hash(self.config),
            **self.provenance,
        }

    def _fitted(self, name: str) -> FittedProgram:
        return FittedProgram(name, self._demand_runnable().fitted)

    def _demand_runnable(self) -> Runnable:
        if self.runnable is None:
            raise SweepviError(
                "this run's model or guide is your own; load it as FitResult.load(folder, model, …, guide=…); "
                "a trial of a sweep is saved without what it takes to run it: rerun=FOLDER repeats it"
            )
        return self.runnable


_SUMMARY = (
    "status",
    "message",
    "elbo",
    "elbo_se",
    "data_size",
    "steps",
    "seconds",
    "seed",
    "engine",
    "restarts",
    "r_hat",
    "skipped",
    "stopped",
    "frozen",
    "notes",
    "attempts",
    "world_size",
    "ranks_agree",
)


def occupied(folder: Path) -> list[Complaint]:
    """Whether a run is in the folder already: nothing computed is written over."""
    if (folder / CHECKPOINT).exists() or (folder / RESULT).exists():
        return [Complaint("folder", f"{folder} holds a run already; resume it, or choose another folder")]
    return []


def from_outcome(recipe: Recipe, outcome: Outcome, provenance: Mapping[str, Any]) -> FitResult:
    """The result of a recipe's outcome; ``provenance`` is of those of :func:`sweepvi.provenance.provenance`."""
    score = elbo_score(outcome.log_weights)
    notes = [note for note in (recipe.guide.note(), *outcome.notes) if note]
    if score.nonfinite:
        notes.append(f"no ELBO: {score.nonfinite} of {outcome.log_weights.numel()} fresh draws are not finite")
    if outcome.score_note and outcome.log_weights.numel():
        notes.append(outcome.score_note)
    settings = recipe.settings
    result = FitResult(
        status=outcome.status,
        message=outcome.message,
        losses=outcome.losses,
        rates=outcome.rates,
        params={name: value.cpu() for name, value in outcome.fitted.state.constrained().items()},
        elbo=score.elbo if outcome.status == "finished" else None,
        elbo_se=score.standard_error if outcome.status == "finished" else None,
        data_size=outcome.data_size,
        steps=outcome.steps,
        seconds=outcome.seconds,
        seed=outcome.seed,
        engine=outcome.engine,
        config=_as_run(recipe.config, outcome.compiled_from),
        restarts=[_restart(each) for each in outcome.restarts],
        r_hat={name: float(values.max()) for name, values in outcome.spread.items() if values.numel()},
        skipped=outcome.skipped,
        world_size=outcome.world_size,
        ranks_agree=outcome.ranks_agree,
        stopped=outcome.stopped,
        frozen=outcome.frozen,
        notes=notes,
        posterior=outcome.fresh.posterior if outcome.fresh is not None else None,
        provenance=dict(provenance),
        runnable=Runnable(outcome.problem, outcome.fitted, outcome.snapshot, settings, fingerprint(recipe)),
    )
    ends = [each["elbo"] for each in result.restarts] or [result.elbo]
    evidence = evidence_of(
        outcome, result.elbo, ends, result.agreeing or 1, result.r_hat.values(), settings.posterior_draws
    )
    result.verdict = judged(evidence)
    return result


def _as_run(config: Mapping[str, Any], compiled_from: int | None) -> dict[str, Any]:
    """The configuration that repeats a fit: machine code is used when it is ready, and that is part of the numbers."""
    known = {} if compiled_from is None else {"compiled_from": compiled_from}
    return {**config, "engine": {**config["engine"], **known}}


def _restart(each: Restart) -> dict[str, Any]:
    score = elbo_score(each.log_weights)
    elbo, error = (score.elbo, score.standard_error) if each.status == "finished" else (None, None)
    return {"seed": each.seed, "status": each.status, "message": each.message, "elbo": elbo, "elbo_se": error}


def _read(cls: type[FitResult], folder: Path) -> FitResult:
    if not (folder / RESULT).is_file():
        raise SweepviError(f"{folder} holds no result ({RESULT} is missing)")
    summary = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    assert isinstance(config, dict)
    losses, rates = read_losses(folder / LOSSES)
    verdict = Verdict(**summary["verdict"]) if summary.get("verdict") else None
    return cls(
        verdict=verdict,
        posterior=_posterior(folder / POSTERIOR, verdict),
        losses=losses,
        rates=rates,
        params=load_file(folder / PARAMS),
        config={str(key): value for key, value in config.items()},
        provenance={key: summary.pop(key) for key in ("versions", "git_commit")},
        **{key: summary.get(key) for key in _SUMMARY if key != "world_size"},
        world_size=summary.get("world_size", 1),
    )


def _posterior(path: Path, verdict: Verdict | None) -> Posterior | None:
    if verdict is None or not path.is_file():
        return None
    return Posterior.read(path, verdict.numbers["draws"], verdict.numbers["k_hat"])


def _recipe_again(
    config: dict[str, Any],
    model: Program | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    guide: Program | None,
) -> Recipe:
    """The recipe of a saved run, to run its model and guide; the state of a given optimizer is read by name."""
    given: dict[str, Any] = {}
    if model is not None:
        given["model"] = given_problem(model, args, kwargs)
    if guide is not None:
        given["guide"] = GivenGuide(guide)
    given |= {group: part for group, part in _UNUSED.items() if config[group]["name"] == GIVEN}
    # What is loaded runs here; and runs from before there were several processes say nothing of it.
    return build({**config, "distributed": {"name": "none"}}, given)


_UNUSED: dict[str, Any] = {
    "estimator": Trace(),
    "optimizer": ClippedAdamRule(),
    "scheduler": Constant(),
    "partition": Single(),
    "stop": Steps(),
}
