"""The README and the other pages say what is so: every command works, every example and table is true."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from fork_server import fork_server

from sweepvi import config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {str(path.relative_to(ROOT)): path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]}
LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
FILE_NAME = re.compile(r"# (\w+\.py)\n")
DEADLINE = 180


def blocks(text, language):
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def steps():
    """What a reader does, in the order of the pages: ("bash", a line) or ("python", a script)."""
    for page in PAGES.values():
        for language, block in re.findall(r"^```(bash|python)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            if language == "python":
                yield "python", block
            else:
                yield from (("bash", line) for line in block.splitlines() if line.strip())


STEPS = list(steps())
FEW = {"engine.steps": "60", "engine.score_draws": "20", "engine.posterior_draws": "0"}
COMMANDS = [step for step in STEPS if not (step[0] == "python" and FILE_NAME.match(step[1]))]
FIRST = next(line for language, line in STEPS if language == "bash")


def shortened(line):
    """A fit of fewer steps, or a sweep of fewer trials, where nothing that tests look at is said of its numbers."""
    is_fit = re.match(r"(python|torchrun .*) -m sweepvi .*=", line) and "runs/first" not in line
    if not is_fit:
        return line
    line = re.sub(r"(?<= engine\.steps=)[\d,]+", lambda steps: re.sub(r"\d(?=,|$)", "", steps[0]), line)
    line = re.sub(r"(?<= sweep\.n_trials=)(\d+)0\b", r"\1", line)
    missing = " ".join(f"{key}={value}" for key, value in FEW.items() if f" {key}=" not in line)
    return line.replace("-m sweepvi ", f"-m sweepvi {missing} ", 1)


def label(step):
    return step[1].split("  ")[0] if step[0] == "bash" else "script: " + step[1].splitlines()[0]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder, and an environment in which ``python`` is this one, started already, and ``torchrun`` its torch's."""
    folder = tmp_path_factory.mktemp("reader")
    with fork_server(tmp_path_factory.mktemp("bin")) as python:
        torchrun = python.with_name("torchrun")
        torchrun.write_text(f'#!/bin/sh\nPYTHON_EXEC={python} exec {python} -m torch.distributed.run "$@"\n')
        torchrun.chmod(0o755)
        path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
        yield folder, {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def shell(line, reader):
    folder, environment = reader
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@pytest.fixture(scope="module")
def done(reader):
    """Every step in order, and how it went; the files that the first run left, before later ones touch them."""
    folder, _ = reader
    went = {}
    for language, text in STEPS:
        name = FILE_NAME.match(text)
        if language == "bash":
            went[language, text] = shell(shortened(text), reader)
        elif name:
            (folder / name[1]).write_text(text)
        else:
            (folder / "script.py").write_text(text)
            went[language, text] = shell("python script.py", reader)
        if text == FIRST:
            went["left"] = {file.name for file in (folder / "runs/first").iterdir()}
    return went


@pytest.mark.parametrize("step", COMMANDS, ids=label)
def test_it_runs(done, step):
    process = done[step]
    assert process.returncode == 0, process.stdout + process.stderr
    assert "Warning" not in process.stderr


def test_the_page_has_what_these_tests_look_for():
    assert FIRST.startswith("python -m sweepvi")
    assert len(COMMANDS) > 8
    assert any(language == "python" for language, _ in COMMANDS)


def test_the_first_run_ends_as_shown(done):
    """The same lines but for times, and for the last digits of the ELBO, which differ between processors."""
    [shown] = [block for block in blocks(README, "text") if block.startswith("finished: ")]
    printed = done["bash", FIRST].stdout
    assert shaped(printed) == shaped(shown)
    elbos = [float(re.search(r"ELBO (-?[\d.]+)", text)[1]) for text in (printed, shown)]
    assert abs(elbos[0] - elbos[1]) < 0.5


def shaped(text):
    """A run's last lines, without numbers that may differ."""
    text = re.sub(r"ELBO \S+ ± \S+", "ELBO", text)
    text = re.sub(r"^(\S+)( +-?\d+\.\d+){5}$", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"(k-hat|by) \d+\.\d+", r"\1", text)
    text = re.sub(r" +", " ", text)
    return re.sub(r" in [\d.]+ s \([\d,]+ steps/s\)", " in s", text)


def test_a_rerun_gives_the_same_numbers(done):
    """By what was printed: the first run was continued since."""
    again = next(text for _, text in COMMANDS if text.startswith("python -m sweepvi rerun=runs/first "))
    elbos = [re.search(r"ELBO .*", done["bash", line].stdout)[0] for line in (FIRST, again)]
    assert elbos[0] == elbos[1]


def test_the_run_folder_holds_what_the_table_says(done):
    assert set(table("| file |")) == done["left"]


def table(header):
    """The first column of a table, without its quotes, and the second."""
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, second = [cell.strip() for cell in line.split("|")[1:3]]
        rows[first.strip("`")] = second
    return rows


def test_bad_input_is_answered_as_shown(reader):
    examples = blocks(README, "console")
    assert examples
    before = set(reader[0].rglob("*"))
    for example in examples:
        command, _, answer = example.partition("\n")
        assert command.startswith("$ ")
        process = shell(command[2:], reader)
        assert (process.returncode, process.stdout, process.stderr) == (2, "", answer)
    assert set(reader[0].rglob("*")) == before


def test_two_commands_set_everything_up():
    commands = [block.strip() for block in blocks(README, "sh")]
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)
    assert commands[1] in (ROOT / ".ci/run").read_text().splitlines()


def test_the_table_of_groups_is_complete():
    rows = table("| group |")
    primary = yaml.safe_load((config.conf_dir() / "config.yaml").read_text())
    defaults = {
        group: name
        for entry in primary["defaults"]
        if isinstance(entry, dict)
        for group, name in entry.items()
        if not group.startswith("override ")
    }
    assert tuple(rows) == config.groups() == tuple(defaults)
    for group, cell in rows.items():
        options = re.findall(r"`([\w/]+)`", cell)
        assert sorted(options) == config.options(group)
        assert defaults[group] in (None, options[0])


@pytest.mark.parametrize("page", LINKING, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    files = [link.partition("#")[0] for link in links if not re.match(r"\w+:", link)]
    missing = [file for file in files if file and not (page.parent / file).exists()]
    assert missing == []
