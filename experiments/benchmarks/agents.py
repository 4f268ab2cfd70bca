"""What a turn costs where several agents share a study: PostgreSQL, and trials that take no time.

    python experiments/benchmarks/agents.py --database postgresql://me@host/studies

Every agent is a process that asks for trials and ends them at once, without a pause between turns: far more turns than
agents take that have fits to run, which pause for a quarter of a second. The peer is Optuna's own way: processes that
ask and tell through its storage in the same database.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

VARIABLE = "SWEEPVI_BENCHMARK_DATABASE"


def agent(name: str, trials: int, place: int, said: Any, all_there: Any) -> None:
    """Run trials until there are no more; says how long each turn was."""
    from sweepvi.command import parse
    from sweepvi.preflight import planned
    from sweepvi.sweep import shared_study
    from sweepvi.sweep.records import COMPLETE
    from sweepvi.sweep.shared_log import SharedLog
    from sweepvi.sweep.study import Verdict

    shared_study.BETWEEN = 0.0
    words = ["-m", "model=eight_schools", "optimizer.lr=tag(log,interval(1e-3,0.3))", "sweep.sampler=random"]
    plan = planned(parse([*words, f"sweep.n_trials={trials}", f"sweep.storage=env:{VARIABLE}"]))[0]
    turns = []
    with SharedLog(Path(tempfile.mkdtemp()) / name, f"env:{VARIABLE}", name, 60.0) as log:
        study = shared_study.SharedStudy(plan, log)
        all_there.wait()
        while study.asked < trials or study.unfinished:
            began = time.perf_counter()
            with study.turn():
                study.judge()
                trial = study.ask()
            turns.append(time.perf_counter() - began)
            if trial is not None:
                study.over(trial.number, Verdict(COMPLETE, values=(-float(trial.number),)))
    said.put(turns)


def optunas(name: str, trials: int, place: int, said: Any, all_there: Any) -> None:
    """The same through Optuna's storage."""
    import optuna

    from sweepvi.sweep.database import alone, for_sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with alone(os.environ[VARIABLE]):
        storage = optuna.storages.RDBStorage(for_sqlalchemy(os.environ[VARIABLE])[0])
    sampler = optuna.samplers.RandomSampler(seed=place)
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, sampler=sampler)
    turns = []
    all_there.wait()
    while True:
        began = time.perf_counter()
        trial = study.ask()
        if trial.number >= trials:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            break
        trial.suggest_float("optimizer.lr", 1e-3, 0.3, log=True)
        study.tell(trial, -float(trial.number))
        turns.append(time.perf_counter() - began)
    said.put(turns)


def measured(kind: str, agents: int, trials: int) -> tuple[float, float]:
    """The median turn of all agents, and the longest of a hundred, in seconds."""
    context = multiprocessing.get_context("spawn")
    said, all_there = context.Queue(), context.Barrier(agents)
    name = f"{kind}-{agents}-{time.time_ns()}"
    target = {"sweepvi": agent, "optuna": optunas}[kind]
    processes = [context.Process(target=target, args=(name, trials, place, said, all_there)) for place in range(agents)]
    for process in processes:
        process.start()
    turns = [turn for _ in processes for turn in said.get(timeout=600)]
    for process in processes:
        process.join()
    return statistics.median(turns), statistics.quantiles(turns, n=100)[-1]


def main() -> None:
    """Measure, and print a row for each number of agents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="URL of an empty database of PostgreSQL's")
    parser.add_argument("--agents", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--trials", type=int, default=400)
    given = parser.parse_args()
    os.environ[VARIABLE] = given.database
    print("| agents | by | turn, median, ms | one in a hundred, ms |\n|--:|---|--:|--:|")
    for agents in given.agents:
        for kind in ("sweepvi", "optuna"):
            middle, longest = measured(kind, agents, given.trials)
            print(f"| {agents} | {kind} | {1e3 * middle:.1f} | {1e3 * longest:.1f} |", flush=True)


if __name__ == "__main__":
    main()
