"""How much better than it is does the winner of a sweep look?

    python experiments/studies/winner/winner.py

The best of many noisy scores is better than it deserves. Ten sweeps of the same 200 settings, each under another seed
of the fits; of every winner, the score by which it was chosen (1,000 draws, the same for all trials), against that of
the same fit on 100,000 other draws. Wanted: 0.05 nats at most, on average.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from sweepvi import cli
from sweepvi.sweep.records import StudyRecord

SPACE = ["optimizer=clipped_adam,adam,adagrad_rmsprop", "optimizer.lr=tag(log,interval(1e-3,1e-1))"]
SAME = ["sweep.n_trials=200", "sweep.sampler=qmc", "sweep.pruner=none", "sweep.finalists=1", "sweep.final_seeds=0"]


def main() -> None:
    """Run the sweeps, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="eight_schools")
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--draws", type=int, default=100_000)
    given = parser.parse_args()
    print(f"{given.model}: trial, chosen by, on {given.draws:,} other draws, difference")
    differences = []
    for seed in range(given.sweeps):
        with tempfile.TemporaryDirectory() as place:
            words = [f"model={given.model}", *SPACE, *SAME, f"engine.seed={seed}", f"sweep.final_draws={given.draws}"]
            assert cli.main(["-m", "-q", *words, f"hydra.sweep.dir={place}/sweep"]) == 0
            best = StudyRecord.read(Path(place) / "sweep").best
        assert best is not None
        assert best.value is not None
        [final] = best.finals_as("rescored")
        assert final.elbo is not None
        differences.append(best.value - final.elbo)
        print(f"{best.number:4d} {best.value:10.3f} {final.elbo:10.3f} {differences[-1]:+.3f}", flush=True)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    print(f"on average {statistics.mean(differences):+.3f} ± {error:.3f}")


if __name__ == "__main__":
    main()
