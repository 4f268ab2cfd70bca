"""What does not go with several processes is said before any of them starts."""

from __future__ import annotations

import pytest

import sweepvi
from sweepvi.errors import ConfigError

GLOO = {"name": "gloo"}
PARTS = {"name": "gloo", "accumulate": 2}
REFUSED = [
    ({"optimizer": "lbfgs"}, "optimizer = 'lbfgs'"),
    ({"engine": {"name": "lanes", "noise": "fixed"}}, "engine.noise = 'fixed'"),
    ({"engine": {"name": "auto", "compile": "always"}}, "engine.compile = 'always'"),
    ({"engine": "lanes", "distributed": PARTS}, "distributed.accumulate = 2"),
    ({"engine": {"name": "auto", "restarts": 3}, "distributed": PARTS}, "engine.restarts = 3"),
]
FINE = [
    {"engine": "lanes", "restarts": 3},
    {"engine": "auto", "compile": "never"},
    {"engine": "eager", "distributed": PARTS},
]


def problems(how):
    """Beside that this process has been started alone."""
    how = {"distributed": GLOO, "steps": 1, **how}
    with pytest.raises(ConfigError) as refused:
        sweepvi.fit("eight_schools", **how)
    return [str(problem) for problem in refused.value.problems if "one process was started" not in str(problem)]


@pytest.mark.parametrize(("how", "key"), REFUSED)
def test_is_refused(how, key):
    assert sum(problem.startswith(key) for problem in problems(how)) == 1


@pytest.mark.parametrize("how", FINE)
def test_is_not_refused(how):
    assert problems(how) == []


def test_fits_of_several_groups_of_processes_are_refused(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    settings = [{"distributed": PARTS}, {"distributed": GLOO}]
    with pytest.raises(ConfigError, match="distributed: must be the same for all fits"):
        sweepvi.fit_many("eight_schools", steps=1, settings=settings)
