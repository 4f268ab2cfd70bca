"""Ten posteriors with reference draws: who fits them, to what, and at what cost?

    python experiments/posteriordb/suite.py --folder posteriordb --seeds 3
    python experiments/posteriordb/suite.py --folder posteriordb --only garch11 --contenders sweepvi numpyro

Results are appended to a file, a line of JSON a fit; the same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import with_pyro
import with_sweep
import with_sweepvi
from fitted import Fitted
from measures import Measures, measures, moments
from reference import reference, scalars
from with_peers import PEERS, PYTHON, Peers

from sweepvi.loading import loader
from sweepvi.models.posteriordb.component import POSTERIORS, Posteriordb
from sweepvi.problem import Problem

CONTENDERS: dict[str, Callable[[Problem, int], Fitted]] = {
    "pyro": with_pyro.fit,
    "pyro_full_rank": with_pyro.full_rank,
    "sweepvi": with_sweepvi.fit,
    "sweepvi_sweep": with_sweep.fit,
}
"""Those that run in this process, and unless others are named."""


@dataclass(frozen=True)
class Line:
    """A fit of a contender's, as it is written."""

    contender: str
    posterior: str
    seed: int
    measures: Measures | None
    """Of the draws as they are."""
    weighted: Measures | None
    """Of the draws as PSIS weights them."""
    k_hat: float | None
    seconds: float | None
    evaluations: int | None
    note: str

    @property
    def key(self) -> tuple[str, str, int]:
        """What is not run twice."""
        return self.contender, self.posterior, self.seed

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Line:
        """The fit of a line."""
        entries = json.loads(text)
        plain, weighted = (
            None if (found := entries.pop(name)) is None else Measures(**found) for name in ("measures", "weighted")
        )
        return cls(**entries, measures=plain, weighted=weighted)

    @property
    def passes(self) -> bool:
        """Whether the draws pass, as they are or weighted."""
        return any(one is not None and one.passes for one in (self.measures, self.weighted))


def run(contender: str, posterior: str, seed: int, folder: Path, peers: Peers) -> Line:
    """Fit, and compare with the reference; a fit that fails is a result too."""
    problem = Posteriordb(posterior, str(folder)).problem(loader())  # pyright: ignore[reportArgumentType]
    problem = problem.to(torch.float64, torch.device("cpu"))
    try:
        if contender in CONTENDERS:
            fit = CONTENDERS[contender](problem, seed)
        else:
            fit = peers.fit(contender, posterior, problem.kwargs, seed)
    except Exception as error:
        return Line(contender, posterior, seed, None, None, None, None, None, f"{type(error).__name__}: {error}")
    known = reference(folder, posterior)
    found = measures(moments(scalars(fit.draws)), known) if fit.draws else None
    weighted = measures(fit.weighted, known) if fit.weighted else None
    return Line(contender, posterior, seed, found, weighted, fit.k_hat, fit.seconds, fit.evaluations, fit.note)


def table(lines: Iterable[Line]) -> str:
    """A row a posterior and contender: medians over seeds, and how many of them pass."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.posterior, line.contender), []).append(line)
    rows = [
        "| posterior | contender | bias / sd | sd ratios | by PSIS | sd ratios | k̂ | pass | seconds | evaluations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [_row(*names, group) for names, group in sorted(groups.items())]
    for contender in sorted({contender for _, contender in groups}):
        of = {posterior: group for (posterior, name), group in groups.items() if name == contender}
        passed = sum(_passes(group) * 2 > len(group) for group in of.values())
        rows.append(f"\n{contender}: passes on {passed} of {len(of)} posteriors (most seeds)")
    return "\n".join(rows)


def _row(posterior: str, contender: str, group: list[Line]) -> str:
    cells = [posterior, contender, *_measured(line.measures for line in group)]
    cells += _measured(line.weighted for line in group)
    cells += [_cell((line.k_hat for line in group), ".2f"), f"{_passes(group)} of {len(group)}"]
    cells += [_cell((line.seconds for line in group), ".1f"), _cell((line.evaluations for line in group), ",.0f")]
    return f"| {' | '.join(cells)} |"


def _measured(of: Iterable[Measures | None]) -> list[str]:
    found = [one for one in of if one is not None]
    if not found:
        return ["–", "–"]
    bias, low, high = (_median(getattr(one, name) for one in found) for name in ("bias", "low", "high"))
    return [f"{bias:.3f}", f"{low:.2f}–{high:.2f}"]


def _passes(group: list[Line]) -> int:
    return sum(line.passes for line in group)


def _cell(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(_median(known), form) if known else "–"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def arguments() -> argparse.Namespace:
    """What the command line says; an end with a message where a contender's environment is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("posteriordb"), help="where posteriordb was downloaded to")
    parser.add_argument("--only", nargs="*", choices=list(POSTERIORS), default=list(POSTERIORS), metavar="POSTERIOR")
    parser.add_argument("--contenders", nargs="*", choices=[*CONTENDERS, *PEERS], default=list(CONTENDERS))
    parser.add_argument("--seeds", type=int, default=3, help="0 only shows the table of what was run")
    parser.add_argument("--results", type=Path, default=Path("posteriordb.jsonl"), help="a line of JSON a fit")
    parser.add_argument("--peers", type=Path, default=PYTHON, metavar="PYTHON", help="of the peers' environment")
    parser.add_argument("--limit", type=float, default=180.0, metavar="SECONDS", help="that a peer's fit may take")
    given = parser.parse_args()
    # Absolute, but no link followed: an environment's Python is a link to another.
    given.peers = Peers(given.peers.absolute(), given.limit)
    if given.seeds and (missing := given.peers.missing(given.contenders)):
        parser.error(missing)
    return given


def main() -> None:
    """Run what has not been run, and print the table."""
    given = arguments()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    lines = [Line.of(text) for text in given.results.read_text().splitlines()] if given.results.exists() else []
    done = {line.key for line in lines}
    for posterior in given.only:
        for contender in given.contenders:
            for seed in range(given.seeds):
                if (contender, posterior, seed) in done:
                    continue
                lines.append(run(contender, posterior, seed, given.folder, given.peers))
                with given.results.open("a") as file:
                    file.write(lines[-1].text() + "\n")
                print(lines[-1].text(), file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
