"""Is the verdict right? 300 fits of mixed quality of ten posteriors whose answer is known, and what is said of them.

    PYTHONPATH=experiments/posteriordb python experiments/verdict/study.py --folder posteriordb

Every fit is a line of the results' file, and the same command again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

from figure import draw
from fits import Line, append, read
from reference import reference
from settings import INSTEAD, SETTINGS
from trust_tables import report

import sweepvi
from sweepvi.models.posteriordb.component import POSTERIORS


def by_program(posterior: str, settings: Iterable[int]) -> dict[str, list[int]]:
    """The places of settings by the program that runs them."""
    found: dict[str, list[int]] = {}
    for place in settings:
        own = SETTINGS[place].program
        found.setdefault(INSTEAD.get(posterior, {}).get(own, own), []).append(place)
    return found


def run(posterior: str, program: str, places: list[int], folder: Path) -> list[Line]:
    """Fit a posterior under settings of one program."""
    model = {"name": "posteriordb", "posterior": posterior, "folder": str(folder)}
    settings = [SETTINGS[place].keywords(program, place) for place in places]
    results = sweepvi.fit_many(model, settings=settings)
    known = reference(folder, posterior)
    return [Line.of(posterior, place, program, result, known) for place, result in zip(places, results, strict=True)]


def study(path: Path, folder: Path, posteriors: Iterable[str]) -> None:
    """Run what is not in the results' file yet, program by program."""
    done = {line.key for line in read(path)}
    missing = {name: [place for place in range(len(SETTINGS)) if (name, place) not in done] for name in posteriors}
    left, begun = sum(map(len, missing.values())), time.perf_counter()
    for posterior, settings in missing.items():
        for program, places in by_program(posterior, settings).items():
            append(path, run(posterior, program, places, folder))
            left -= len(places)
            passed = time.perf_counter() - begun
            print(f"{passed:6.0f} s, {left:3d} fits to go: {posterior}, {program}", file=sys.stderr, flush=True)


def main() -> None:
    """Run what has not been run, print the tables, and draw the figure."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("posteriordb"), help="where posteriordb was downloaded to")
    parser.add_argument("--only", nargs="*", choices=list(POSTERIORS), default=list(POSTERIORS), metavar="POSTERIOR")
    parser.add_argument("--results", type=Path, default=here / "fits.csv", help="a line a fit")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    given = parser.parse_args()
    # A step size that is far too large is noted by torch and numpy, too.
    warnings.filterwarnings("ignore")
    if not given.tables:
        study(given.results, given.folder, given.only)
    lines = read(given.results)
    print(report(lines))
    draw(lines, given.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
