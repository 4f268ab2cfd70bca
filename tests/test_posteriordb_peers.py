"""The NumPyro models of the ten posteriors, next to the Pyro models, and what the suite does without their environment.

The former needs the peers' environment, in ``experiments/posteriordb/.venv`` or where the environment variable
``SWEEPVI_PEERS`` says its Python is.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from posteriordb_data import made_up
from test_posteriordb import Unconstrained, double, log_prob, points, problem, study  # noqa: F401

from sweepvi.models.posteriordb.component import POSTERIORS


@pytest.fixture
def python(study):  # noqa: F811
    """The Python of the peers' environment."""
    from with_peers import PYTHON

    found = Path(os.environ.get("SWEEPVI_PEERS", PYTHON))
    if not found.is_file():
        pytest.skip(f"JAX's environment is not there: {found}")
    return found


def test_log_joints_are_those_of_pyro(python, tmp_path, double):  # noqa: F811
    from with_peers import Peers

    expected, data = {}, made_up(tmp_path / "posteriordb")
    for name in POSTERIORS:
        posed = problem(name, data)
        density = Unconstrained(posed)
        several = [density.sites(z) for z in points(density.size)]
        expected[name] = [log_prob(posed, at).item() for at in several]
        np.savez(tmp_path / f"{name}.data.npz", **{key: np.asarray(value) for key, value in posed.kwargs.items()})
        np.savez(
            tmp_path / f"{name}.points.npz", **{site: torch.stack([at[site] for at in several]) for site in several[0]}
        )
    Peers(python, 300).run("peers.log_joint", str(tmp_path))
    for name in POSTERIORS:
        assert np.load(tmp_path / f"{name}.npy") == pytest.approx(expected[name], rel=1e-9), name


def test_without_their_environment_peers_are_an_error_before_anything_runs(study, tmp_path, monkeypatch, capsys):  # noqa: F811
    import suite

    words = ["--contenders", "pyro", "dadvi", "--peers", str(tmp_path / "python"), "--folder", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["suite.py", *words])
    with pytest.raises(SystemExit):
        suite.main()
    said = capsys.readouterr().err
    assert f"{tmp_path / 'python'} is not there, and is needed by dadvi" in said
    assert "pip install -r experiments/posteriordb/requirements-peers.txt" in said


def test_a_peer_that_fails_is_a_result(study):  # noqa: F811
    from with_peers import Peers

    found = Peers(Path(sys.executable), 60).fit("none such", "garch11", {}, 0)
    assert (found.draws, found.k_hat) == ({}, None)
    assert "Error" in found.note
