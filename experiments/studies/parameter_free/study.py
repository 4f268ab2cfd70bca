"""Parameter-free optimizers on real posteriors, beside ClippedAdam at the best step size of a grid.

All fits of a posterior run at once, as lanes of an arena; fits with one seed see the same draws.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro
import torch
from dadapt_adam import DAdaptAdamRule
from dog import DoGRule
from dowg import DoWGRule
from lanes import Density, Guide
from posteriors import Posterior, from_posteriordb, shipped
from prodigy import ProdigyRule
from score_tables import Score, tables
from torch import Tensor

from sweepvi.optim.arena import Arena
from sweepvi.optim.clip import Clip
from sweepvi.optim.clipped_adam import ClippedAdamRule
from sweepvi.optim.rule import Rule
from sweepvi.optim.schedule_free_adam import ScheduleFreeAdamRule
from sweepvi.optim.schedule_free_prodigy import ScheduleFreeProdigyRule

GRID = (1e-4, 1e-3, 3e-3, 1e-2, 0.02, 0.03, 0.1, 0.3, 1.0)
DRAWS = 1000
FULL_RANK_LIMIT = 50
"""Latent numbers up to which there are full-rank fits: beyond, a hundred at a time take too long."""


@dataclass(frozen=True)
class Contender:
    """A rule; with ``horizon``, its step size falls to zero there along a half cosine."""

    name: str
    rule: Rule
    horizon: int | None = None

    def factor(self, step: int) -> float:
        if self.horizon is None:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min((step - 1) / self.horizon, 1.0)))


def contenders(budgets: list[int]) -> list[Contender]:
    free = {
        "DoG": DoGRule(),
        "DoWG": DoWGRule(),
        "D-Adapt Adam": DAdaptAdamRule(),
        "Prodigy": ProdigyRule(),
        "Prodigy, bias-corrected": ProdigyRule(bias_correction=True),
        "schedule-free Prodigy": ScheduleFreeProdigyRule(),
        "schedule-free Prodigy, d_coef=1": ScheduleFreeProdigyRule(d_coef=1.0),
        "schedule-free Adam": ScheduleFreeAdamRule(clip=Clip()),
    }
    tuned = {f"ClippedAdam, lr={lr:g}": ClippedAdamRule(lr=lr) for lr in GRID}
    constant = [Contender(name, rule) for name, rule in (free | tuned).items()]
    return constant + [replace(c, horizon=n) for c in constant for n in budgets if "schedule-free" not in c.name]


def fits(density: Density, posterior: Posterior, full: bool, seeds: int, budgets: list[int]) -> list[Score]:
    """Run every contender from every seed, and score those due at each budget."""
    guide = Guide(density, full)
    groups: dict[Rule, list[Contender]] = {}
    for contender in contenders(budgets):
        groups.setdefault(replace(contender.rule, lr=1.0), []).append(contender)  # pyright: ignore[reportCallIssue]
    runs = [Run(own, guide) for own in groups.values()]
    gradient, shape = guide.gradient(), (seeds, density.size)
    generator = torch.Generator().manual_seed(0)
    fresh = torch.randn((DRAWS, density.size), generator=torch.Generator().manual_seed(1))
    name = "full-rank" if full else "mean-field"
    starts = enumerate(guide.start())
    scored = [(seed, guide.score(params, fresh, posterior.reference)) for seed, params in starts]
    scores = [Score(posterior.name, name, "start", seed, 0, "last", elbo, bias) for seed, (elbo, bias) in scored]
    lanes = [len(run.arena) for run in runs]
    for step in range(1, max(budgets) + 1):
        noise = torch.randn(shape, generator=generator).repeat(sum(lanes) // seeds, 1)
        grads = gradient(torch.cat([run.arena for run in runs]), noise)
        for run, grad in zip(runs, grads.split(lanes), strict=True):
            run.advance(grad, step)
        if step in budgets:
            for run in runs:
                for contender, seed, result, params in run.results(step):
                    elbo, bias = guide.score(params, fresh, posterior.reference)
                    scores.append(Score(posterior.name, name, contender, seed, step, result, elbo, bias))
    return scores


class Run:
    """Contenders whose rules differ in numbers only, each from every seed."""

    def __init__(self, contenders: list[Contender], guide: Guide) -> None:
        self.contenders, self.rule = contenders, contenders[0].rule
        start = guide.start()
        self.seeds = len(start)
        self.arena = start.repeat(len(contenders), 1)
        self.update = Arena(self.rule, guide.shapes())
        self.slots = self.update.init(self.arena, self.hyper(1))

    def hyper(self, step: int) -> dict[str, Any]:
        rates = [c.rule.hyper()["lr"] * c.factor(step) for c in self.contenders for _ in range(self.seeds)]
        return self.rule.hyper() | {"lr": torch.tensor(rates, dtype=torch.float64).unsqueeze(-1)}

    def advance(self, grad: Tensor, step: int) -> None:
        self.arena, self.slots = self.update.update(grad, self.arena, self.slots, self.hyper(step), step)

    def results(self, step: int) -> list[tuple[str, int, str, Tensor]]:
        """Contender, seed, ``last`` or ``average``, and the parameters, of what is to be scored now."""
        slots = {name.partition("/")[2]: slot for name, slot in self.slots.items()}
        averages = self.rule.evaluated(self.arena, slots, self.hyper(step))
        found = []
        for place, contender in enumerate(self.contenders):
            for seed in range(self.seeds):
                lane = place * self.seeds + seed
                if contender.horizon == step:
                    found.append((contender.name, seed, "decayed", self.arena[lane]))
                elif contender.horizon is None:
                    found.append((contender.name, seed, "last", self.arena[lane]))
                    if averages is not self.arena:
                        found.append((contender.name, seed, "average", averages[lane]))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--posteriordb", type=Path, help="folder with a folder for each posterior; else, shipped models"
    )
    parser.add_argument("--only", nargs="*", help="names of posteriors to leave it at")
    parser.add_argument("--guides", nargs="*", choices=["mean-field", "full-rank"], default=["mean-field", "full-rank"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="*", default=[2000, 6000])
    parser.add_argument("--scores", type=Path, help="JSON file for the score of every fit")
    parser.add_argument("--tables", type=Path, nargs="*", help="only show the tables of these JSON files")
    options = parser.parse_args()
    if options.tables:
        print(tables([Score(**score) for path in options.tables for score in json.loads(path.read_text())]))
        return
    warnings.filterwarnings("ignore")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    posteriors = shipped()
    if options.posteriordb:
        # Eight schools is there too, with reference draws.
        posteriors = posteriors[:1] + from_posteriordb(options.posteriordb)
    scores: list[Score] = []
    for posterior in posteriors:
        density = Density(posterior.model, options.seeds)
        for name in options.guides:
            full, begin = name == "full-rank", time.perf_counter()
            if (options.only and posterior.name not in options.only) or (full and density.size > FULL_RANK_LIMIT):
                continue
            scores += fits(density, posterior, full, options.seeds, options.budgets)
            print(f"{posterior.name}, {name}: {time.perf_counter() - begin:.0f} s", flush=True)
            if options.scores:
                options.scores.write_text(json.dumps([vars(score) for score in scores], indent=0))
    print(tables(scores))


if __name__ == "__main__":
    main()
