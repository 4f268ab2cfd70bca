"""Sweeps, side by side with a plain loop of Pyro and Optuna in as many processes.

    python experiments/benchmarks/sweeps.py throughput overhead occupancy

``throughput``: a study of 256 trials of 2,000 steps, from the command to the last file, against two processes that ask
an Optuna study for a step size, run Pyro's SVI and score by as many draws; the loop is timed over some trials,
and its time for all of them is in proportion. ``overhead``: 1,000 trials of few steps; what a trial costs beside steps,
scores and sampler. ``occupancy``: 1,000 trials over three optimizers and two guides under Hyperband.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna

ROOT = Path(__file__).parents[2]
TRIALS, STEPS, DRAWS, PROCESSES = 256, 2000, 1000, 2
SPACE = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
WANTED = {"eight_schools": 100, "radon": 60}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["throughput", "overhead", "occupancy"])
    parser.add_argument("--problem", default="eight_schools,radon")
    parser.add_argument("--peer-trials", type=int, default=3, help="trials of each of the loop's processes")
    parser.add_argument("--sampler", default="random,tpe")
    parser.add_argument("--peer", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer:
        _peer(given.peer[0], given.peer[1], int(given.peer[2]))
        return
    if "throughput" in given.parts:
        for problem in given.problem.split(","):
            throughput(problem, given.sampler.split(","), given.peer_trials)
    if "overhead" in given.parts:
        overhead()
    if "occupancy" in given.parts:
        occupancy()


def throughput(problem: str, samplers: list[str], peer_trials: int) -> None:
    """Wall time of the whole study, against the loop's."""
    loop = _loop(problem, peer_trials)
    for sampler in samplers:
        for pruner in ("none", "hyperband"):
            words = [f"model={problem}", SPACE, f"engine.steps={STEPS}", f"engine.score_draws={DRAWS}"]
            words += [f"sweep.n_trials={TRIALS}", f"sweep.sampler={sampler}", f"sweep.pruner={pruner}"]
            seconds, events = _sweep([*words, "sweep.finalists=0"])
            busy = events[-1]["lanes_busy"]
            print(
                f"{problem} {sampler} pruner={pruner}: {seconds:.1f} s, loop {loop:,.0f} s: {loop / seconds:.0f} times "
                f"(wanted {WANTED[problem]}); sampler {events[-1]['sampler_seconds']:.1f} s, lanes busy {busy:.0%}",
                flush=True,
            )


def overhead(trials: int = 1000) -> None:
    """What a trial costs beside steps, scores and sampler."""
    words = ["model=eight_schools", SPACE, "engine.steps=30", "engine.score_draws=10", f"sweep.n_trials={trials}"]
    words += ["sweep.pruner=none", "sweep.finalists=0", "workers.cpus=1"]
    for sampler in ("random", "tpe"):
        few, first = _sweep([*words, "sweep.n_trials=16", f"sweep.sampler={sampler}"])
        many, events = _sweep([*words, f"sweep.sampler={sampler}"])
        last = {key: events[-1][key] - first[-1][key] for key in ("computing_seconds", "sampler_seconds")}
        rest = many - few - last["computing_seconds"] - last["sampler_seconds"]
        print(
            f"{trials} {sampler}: {many:.1f} s, of few {few:.1f} s, computing {last['computing_seconds']:.1f} s, "
            f"sampler {last['sampler_seconds']:.1f} s: {rest / trials * 1e3:.1f} ms a trial beside (wanted below 5)",
            flush=True,
        )


def occupancy() -> None:
    """How busy lanes are where trials end at any time."""
    words = ["model=eight_schools", "guide=auto_normal,auto_multivariate_normal", SPACE, "sweep.n_trials=1000"]
    words += ["optimizer=clipped_adam,adam,rmsprop", f"engine.steps={STEPS}", "sweep.sampler=random"]
    seconds, events = _sweep([*words, "sweep.pruner=hyperband", "sweep.finalists=0"])
    ended = [event for event in events if event["event"] == "ended"]
    pruned = sum(event["reason"] == "rung" for event in ended)
    print(
        f"1,000 trials, 3 optimizers x 2 guides, hyperband: {seconds:.1f} s, {pruned} pruned, "
        f"lanes busy {events[-1]['lanes_busy_while_more']:.1%} until the last trial has begun (wanted 90 %), "
        f"{events[-1]['lanes_busy']:.1%} to the end"
    )


def _sweep(words: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of a sweep from its command to its end, and its log."""
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        command = [sys.executable, "-m", "sweepvi", "-m", "-q", *words, f"hydra.sweep.dir={place}/sweep"]
        subprocess.run(command, check=True, cwd=ROOT)
        seconds = time.perf_counter() - began
        lines = (Path(place) / "sweep" / "study.jsonl").read_text().splitlines()
    return seconds, [json.loads(line) for line in lines]


def _loop(problem: str, trials: int) -> float:
    """Seconds that the loop needs for all trials, in proportion to some of them."""
    with tempfile.TemporaryDirectory() as place:
        url = f"sqlite:///{place}/study.db"
        optuna.create_study(storage=url, study_name="peer", direction="maximize")
        command = [sys.executable, __file__, "--peer", problem, url, str(trials)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        processes = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(PROCESSES)
        ]
        seconds = [float(process.communicate()[0].split()[-1]) for process in processes]
    each = sum(seconds) / len(seconds) / trials
    return each * TRIALS / PROCESSES


def _peer(name: str, url: str, trials: int) -> None:
    """What a user of Pyro and Optuna writes."""
    import pyro
    import torch
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormal
    from pyro.optim import ClippedAdam

    from experiments.benchmarks.contenders.problems import problem

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = problem(name)
    model, kwargs = (
        found.pyro.model,
        {
            key: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for key, value in found.pyro.kwargs.items()
        },
    )

    def objective(trial: optuna.Trial) -> float:
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = AutoNormal(model)
        svi = SVI(model, guide, ClippedAdam({"lr": trial.suggest_float("lr", 1e-3, 1e-1, log=True)}), Trace_ELBO())
        for _ in range(STEPS):
            svi.step(**kwargs)
        with torch.no_grad():
            return -sum(Trace_ELBO().loss(model, guide, **kwargs) for _ in range(DRAWS)) / DRAWS

    study = optuna.load_study(storage=url, study_name="peer")
    objective(study.ask())
    began = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
