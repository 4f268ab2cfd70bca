"""Steps as machine code: the same fits, checked before they are trusted, and left alone where they cannot be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import sweepvi
from sweepvi.engine.lanes import lane_fits, stepping
from sweepvi.engine.lanes.compiled import chunk, compilation, packages, tiers
from sweepvi.engine.lanes.compiled.compilation import Compilation
from sweepvi.engine.lanes.compiled.program import ChunkProgram, Layout
from sweepvi.engine.lanes.compiled.tiers import MiscompiledError, Tiers, differences, estimated_seconds
from sweepvi.settings import LaneSettings

Y = torch.tensor([0.3, -1.2, 0.7, 2.0, 0.1, -0.4])
ENGINE = {
    "engine": "lanes",
    "dtype": "float64",
    "restarts": 2,
    "steps": 200,
    "score_draws": 10,
    "posterior_draws": 0,
    "checkpoint_every": 50,
}


def model(y):
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(loc, scale), obs=y)


def fit(**changes):
    return sweepvi.fit(model, (Y,), **{**ENGINE, **changes})


def same(one, other):
    return (
        torch.equal(one.losses, other.losses)
        and one.elbo == other.elbo
        and all(torch.equal(value, other.params[name]) for name, value in one.params.items())
    )


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    """Programs that the tests of this file compile, kept for all of them, also where several processes run them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "programs"
    monkeypatch.setenv("SWEEPVI_CACHE", str(folder))
    return folder / "compiled"


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(Compilation, "_begin", _refuse)


def _refuse(self, program):
    raise AssertionError("a compiler was started")


def test_machine_code_takes_the_same_steps_and_is_kept(cache, monkeypatch, tmp_path):
    traced, compiled = fit(compile="never"), fit(compile="always")
    assert (traced.compiled_from, compiled.compiled_from) == (None, 0)
    assert compiled.notes == []
    assert_close(compiled.losses, traced.losses, rtol=1e-10, atol=1e-10)
    assert_close(compiled.params, traced.params, rtol=1e-10, atol=1e-10)
    for name, value in traced.r_hat.items():
        assert compiled.r_hat[name] == pytest.approx(value, rel=1e-8)
    assert not list(cache.glob("making-*"))
    assert (cache.stat().st_mode & 0o777) == 0o700
    with monkeypatch.context() as patch:
        patch.setattr(Compilation, "_begin", _refuse)
        assert same(fit(compile="always"), compiled)
        # Machine code from some step on: as its run folder says, and as the same run says that goes on from there.
        late = fit(compiled_from=50)
        assert late.compiled_from == 50
        assert torch.equal(late.losses[:50], traced.losses[:50])
        assert not torch.equal(late.losses, traced.losses)
        late.save(tmp_path / "run")
        assert '"compiled_from": 50' in (tmp_path / "run" / "result.json").read_text()
        loaded = sweepvi.FitResult.load(tmp_path / "run", model, (Y,))
        assert loaded.compiled_from == 50
        assert same(fit(**{key: loaded.config["engine"][key] for key in ("compile", "compiled_from")}), late)


@pytest.mark.long
def test_machine_code_of_many_lanes_takes_the_same_steps(cache):
    traced, compiled = (fit(compile=how, restarts=16, steps=100) for how in ("never", "always"))
    assert (compiled.compiled_from, compiled.notes) == (0, traced.notes)
    assert_close(compiled.losses, traced.losses, rtol=1e-10, atol=1e-10)
    assert_close(compiled.params, traced.params, rtol=1e-10, atol=1e-10)


def test_a_fit_that_is_continued_uses_machine_code_at_once(cache, tmp_path):
    whole = fit(compile="always")
    sweepvi.fit(model, (Y,), **{**ENGINE, "steps": 100}, compile="always", folder=tmp_path / "run")
    resumed = sweepvi.fit(model, (Y,), **ENGINE, compile="always", folder=tmp_path / "run", resume=True)
    assert resumed.compiled_from == 0
    assert same(resumed, whole)


def test_lanes_that_are_refilled_stay_in_machine_code(cache, monkeypatch):
    monkeypatch.setattr(lane_fits, "most_lanes", lambda *given: 2)
    settings = [{"seed": seed, "steps": steps, "restarts": 1} for seed, steps in enumerate((60, 200, 130))]
    shared = {key: value for key, value in ENGINE.items() if key not in ("steps", "restarts")}
    lanes = {
        name: sweepvi.fit_many(model, (Y,), settings=settings, **shared, compile=name) for name in ("never", "always")
    }
    for traced, compiled in zip(lanes["never"], lanes["always"], strict=True):
        assert compiled.compiled_from == 0
        assert_close(compiled.losses, traced.losses, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", ["state", "seen"])
def test_machine_code_that_is_wrong_is_noticed(cache, monkeypatch, place):
    fit(compile="always")
    right = chunk.WholeChunk.__call__

    def wrong(self, *given):
        state, seen = right(self, *given)
        changed = state if place == "state" else seen
        changed[0] = changed[0] * (1 + 1e-4)
        return state, seen

    traced = fit(compile="never")
    monkeypatch.setattr(chunk.WholeChunk, "__call__", wrong)
    result = fit(compile="always")
    assert result.compiled_from is None
    [note] = result.notes
    assert note.startswith("steps are not compiled: machine code differs from the traced step by")
    assert same(result, traced)


def test_machine_code_may_be_as_far_as_roundings_grow(cache, monkeypatch):
    """In few lanes."""
    monkeypatch.setattr(stepping, "TOLERANCE", {torch.float64: 1e-18})
    assert fit(compile="always").compiled_from is None
    monkeypatch.setattr(stepping, "FEW", 1)
    assert fit(compile="always").compiled_from == 0
    monkeypatch.setattr(stepping, "GROWN", 1e-9)
    assert fit(compile="always").compiled_from is None


def test_without_a_compiler_fits_run_as_traced(monkeypatch, tmp_path):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("CXX", "/no/such/compiler")
    monkeypatch.setenv("PATH", "/no/such/folder")
    result = fit(compile="always")
    [note] = result.notes
    assert note.startswith("steps are not compiled: ")
    assert same(result, fit(compile="never"))


@pytest.mark.usefixtures("no_compiler")
def test_short_fits_are_not_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path))
    result = fit()
    assert result.compiled_from is None
    assert result.config["engine"]["compiled_from"] is None


class Graph:
    """As large as it is told."""

    def __init__(self, nodes):
        self.node_count, self.numbers = nodes, 1000 * nodes


def test_long_fits_are_compiled_whatever_the_clock_says():
    graph = Graph(300)
    enough = int(tiers.WORTH_COMPILING / estimated_seconds(graph)) + 1
    assert Tiers(LaneSettings(), graph, enough).undecided
    assert not Tiers(LaneSettings(), graph, enough - 2).undecided
    assert not Tiers(LaneSettings(compile="never"), graph, enough).undecided
    assert Tiers(LaneSettings(compile="always"), graph, 1).undecided
    large = Tiers(LaneSettings(compile="always"), Graph(tiers.MOST_NODES + 1), 10**9)
    assert not large.undecided
    assert "3001 operations" in large.note
    assert not Tiers(LaneSettings(), Graph(tiers.MOST_NODES + 1), 10**9).undecided


def test_a_chunk_ends_where_machine_code_is_to_begin():
    found = Tiers(LaneSettings(compiled_from=100), Graph(10), 1000)
    assert [found.length(step, 64) for step in (0, 64, 100)] == [64, 36, 64]
    assert Tiers(LaneSettings(compile="always"), Graph(10), 1000).length(0, 64) == 64


def test_a_run_that_never_switched_says_so_to_its_repetition(monkeypatch):
    """The background may be too slow for a run, and faster the next time."""
    monkeypatch.setattr(tiers, "WORTH_COMPILING", 0.0)
    monkeypatch.setattr(compilation.Compilation, "__init__", lambda self, program: None)
    monkeypatch.setattr(compilation.Compilation, "package", lambda self: None)
    monkeypatch.setattr(compilation.Compilation, "stop", lambda self: None)
    result = fit()
    assert result.compiled_from is None
    assert result.config["engine"]["compiled_from"] == 200


LANES = torch.tensor([True, False, True])


def test_differences_are_relative_to_each_lanes_own_size():
    theirs = torch.tensor([[1.0, 1e-9], [5.0, 5.0], [1e6, 1.0]], dtype=torch.float64)
    assert differences([theirs + 1e-9], [theirs], LANES, 0, 1e-7).max() <= 1e-7
    for lane, place, change in ((0, 1, 1e-6), (0, 0, torch.nan), (1, 0, torch.nan), (2, 1, 1.0)):
        unlike = theirs.clone()
        unlike[lane, place] += change
        expected = [0.0, 0.0, 0.0]
        if LANES[lane]:
            expected[lane] = change / (float(theirs[lane].max()) + 1e-7) if change < torch.inf else torch.inf
        assert differences([theirs, unlike], [theirs] * 2, LANES, 0, 1e-7).tolist() == pytest.approx(expected)
        assert differences([unlike.T], [theirs.T], LANES, 1, 1e-7).tolist() == pytest.approx(expected)
    assert not differences([unlike], [theirs], torch.zeros(3, dtype=torch.bool), 0, 1e-7).any()
    infinite = torch.full((3, 2), torch.inf)
    assert not differences([infinite], [infinite], LANES, 0, 1e-7).any()
    with pytest.raises(MiscompiledError, match="other steps"):
        differences([LANES], [torch.tensor([True, True, False])], LANES, 0, 1e-7)


def test_programs_are_found_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path / "cache"))
    folder = packages.cache_folder()
    assert folder is not None
    made = folder / "made.pt2"
    made.write_bytes(b"code")
    kept = packages.keep(folder, "key", made)
    assert packages.find(folder, "key") == kept
    assert packages.find(folder, "other") is None
    kept.write_bytes(b"cod")
    assert packages.find(folder, "key") is None


def test_a_folder_that_others_can_write_to_is_closed_to_them_and_a_foreign_one_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path))
    (tmp_path / "compiled").mkdir(mode=0o777)
    (tmp_path / "compiled").chmod(0o777)
    folder = packages.cache_folder()
    assert folder is not None
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert packages.cache_folder() is None
    monkeypatch.setenv("SWEEPVI_CACHE", "/proc/nowhere")
    assert packages.cache_folder() is None


def test_old_programs_make_room(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "KEPT", 2)
    folder = packages.cache_folder()
    assert folder is not None
    for number in range(3):
        made = folder / "made"
        made.write_bytes(bytes([number]))
        os.utime(packages.keep(folder, f"key{number}", made), (number, number))
    assert [packages.find(folder, f"key{number}") is not None for number in range(3)] == [False, True, True]


class Repeated:
    """What a recording of a step does, without a device that records."""

    def __init__(self, step, state, row, constants):
        self._step = step

    def __call__(self, state, rows, constants):
        seen = []
        for row in zip(*rows, strict=True):
            state, found = self._step(state, row, constants)
            seen.append(found)
        return list(state), [torch.stack(column) for column in zip(*seen, strict=True)]


@pytest.mark.long
def test_a_step_alone_as_machine_code_and_recorded(cache, monkeypatch):
    """As on a device that is told of each step."""
    monkeypatch.setattr(stepping, "recordable", lambda *tensors: True)
    monkeypatch.setattr(stepping, "Recording", Repeated)
    monkeypatch.setattr(chunk, "Recording", Repeated)
    traced, compiled = fit(compile="never"), fit(compile="always")
    assert (traced.compiled_from, compiled.compiled_from, compiled.notes) == (None, 0, [])
    assert_close(compiled.losses, traced.losses, rtol=1e-10, atol=1e-10)
    assert_close(compiled.params, traced.params, rtol=1e-10, atol=1e-10)
    monkeypatch.setattr(chunk, "Recording", Broken)
    refused = fit(compile="always")
    assert refused.compiled_from is None
    assert "not compiled: it cannot be recorded" in refused.notes[0]
    assert same(refused, traced)


class Broken:
    def __init__(self, *given):
        raise RuntimeError("it cannot be recorded")


PROGRAM = ChunkProgram(
    step="nothing",
    prepare="nothing",
    states=1,
    given=1,
    same=0,
    layouts=(Layout((2,), torch.float32, "cpu"),),
    length=64,
    stepwise=False,
    threads=1,
)


def test_a_programs_key_is_of_all_that_its_code_depends_on(monkeypatch):
    from dataclasses import replace

    others = [
        replace(PROGRAM, step="something"),
        replace(PROGRAM, prepare="something"),
        replace(PROGRAM, layouts=(Layout((3,), torch.float32, "cpu"),)),
        replace(PROGRAM, layouts=(Layout((2,), torch.float64, "cpu"),)),
        replace(PROGRAM, length=32),
        replace(PROGRAM, stepwise=True),
        replace(PROGRAM, same=1),
        replace(PROGRAM, threads=2),
    ]
    keys = {program.key() for program in (PROGRAM, *others)}
    assert len(keys) == len(others) + 1
    assert PROGRAM.key() in keys
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert PROGRAM.key() not in keys


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # What has ended and is not waited for is still there.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _ends(pid):
    deadline = time.monotonic() + 60
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _alive(pid)


def test_a_compiler_is_stopped_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEPVI_CACHE", str(tmp_path))
    running = Compilation(PROGRAM)
    assert running.package() is None
    process = running._process
    assert process is not None
    assert list((tmp_path / "compiled").glob("making-*"))
    running.stop()
    running.stop()
    assert _ends(process.pid)
    assert not list((tmp_path / "compiled").glob("making-*"))


def test_a_compiler_ends_with_the_process_that_wants_it(tmp_path):
    code = "from test_compiled import *; c = Compilation(PROGRAM); print(c._process.pid, flush=True); time.sleep(60)"
    environment = {**os.environ, "SWEEPVI_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        compiler = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert _ends(compiler)
