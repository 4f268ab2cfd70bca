"""What is installed: the wheel has all that it needs and nothing else, and runs away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from test_readme import README, blocks

import sweepvi

ROOT = Path(__file__).parents[1]


def run(command, cwd, **options):
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], ROOT)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a fresh environment with the wheel; dependencies come from the environment of this test."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, symlinks=True, with_pip=False)
    installed = folder / "bin/python"
    run([sys.executable, "-m", "pip", "--python", installed, "install", "--no-deps", "--no-index", wheel], folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run([installed, "-c", code], folder).strip())
    # A path in a .pth file is searched last, and the .pth files in it are not read: not this environment's checkout.
    here = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (packages / "dependencies.pth").write_text("\n".join(here) + "\n")
    return installed


@pytest.fixture
def apart():
    """An environment variable must not bring the checkout back."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def test_the_wheel_is_the_package_and_nothing_else(names):
    info = f"sweepvi-{sweepvi.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"sweepvi", "hydra_plugins", info}
    # A namespace package: other plugins' files are beside ours.
    assert "hydra_plugins/__init__.py" not in names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.parametrize("folder", ["sweepvi", "conf", "hydra_plugins"])
def test_the_wheel_has_every_file_of_the_checkout(names, folder):
    expected = {
        str(Path("sweepvi") / path.relative_to(ROOT) if folder == "conf" else path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    known = {"sweepvi": "sweepvi/models/data/radon_mn.csv", "conf": "sweepvi/conf/config.yaml"}
    assert known.get(folder, "hydra_plugins/sweepvi/__init__.py") in expected
    assert expected <= names


def test_the_wheel_names_hydras_plugin(wheel):
    """For Hydra 1.4; Hydra 1.3 finds it by its place."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "[hydra.plugins]\nsweepvi = hydra_plugins.sweepvi:SweepviSweeper\n" in archive.read(name).decode()


def test_the_wheel_says_that_it_is_typed(names):
    assert "sweepvi/py.typed" in names


def test_the_wheel_is_what_is_imported(python, tmp_path, apart):
    out = run([python, "-c", "import sweepvi; print(sweepvi.__file__)"], tmp_path, env=apart)
    assert Path(out.strip()).is_relative_to(python.parents[1])


def test_it_fits(python, tmp_path, apart):
    words = ["optimizer=clipped_adam", "engine.steps=20", "engine.score_draws=5"]
    out = run([python, "-m", "sweepvi", *words, "hydra.run.dir=run"], tmp_path, env=apart)
    assert out.startswith("finished: ELBO ")
    assert (tmp_path / "run/result.json").exists()
    log = (tmp_path / "run/sweepvi.log").read_text()
    assert str(ROOT) not in out + log


def test_it_tells_what_there_is(python, tmp_path, apart):
    assert "asgd, clipped_adam, dct_adam" in run([python, "-m", "sweepvi", "--help"], tmp_path, env=apart)
    told = run([python, "-m", "sweepvi", "--components"], tmp_path, env=apart)
    assert "  clipped_adam - " in told
    assert run([python.parent / "sweepvi", "--version"], tmp_path, env=apart) == f"{sweepvi.__version__}\n"
    assert list(tmp_path.iterdir()) == []


def test_it_sweeps(python, tmp_path, apart):
    words = ["-m", "model=eight_schools", "engine.seed=0,1", "engine.steps=20", "engine.score_draws=5"]
    run([python, "-m", "sweepvi", *words, "workers.cpus=1", "hydra.sweep.dir=all"], tmp_path, env=apart)
    assert (tmp_path / "all/study.jsonl").exists()


@pytest.mark.long
def test_the_first_command_of_the_readme(tmp_path, apart):
    """On a fresh checkout, as it is printed, with nobody at the keyboard."""
    fresh = tmp_path / "checkout"
    if (ROOT / ".git").exists():
        run(["git", "archive", "-o", tmp_path / "checkout.tar", "HEAD"], ROOT)
        shutil.unpack_archive(tmp_path / "checkout.tar", fresh)
    else:
        shutil.copytree(ROOT, fresh, ignore=shutil.ignore_patterns(".venv", "outputs", "__pycache__"))
    command = blocks(README, "sh")[0].strip()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    run(["bash", "-c", command], fresh, env={**apart, "PATH": path}, stdin=subprocess.DEVNULL)
    [result] = fresh.glob("outputs/*/*/result.json")
    assert '"status": "finished"' in result.read_text()
