"""Every file in ``conf/``: composes, says what the class says, builds and takes a step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from posteriordb_data import made_up

from sweepvi import config, recipe, registry, runs
from sweepvi.catalogue import yaml_text
from sweepvi.errors import ConfigError
from sweepvi.keys import keys_of
from sweepvi.preset import PORTFOLIO
from sweepvi.sweep.grammar import domain_of
from sweepvi.sweep.settings import SweepSettings, WorkerSettings

OPTIONS = [(group, name) for group in config.groups() if group not in config.SWEEPING for name in config.options(group)]
SWEEPING = {"sweep": SweepSettings, "workers": WorkerSettings}
REQUIRED = {
    ("estimator", "trace_enum"): ["estimator.strict_enumeration_warning=false"],  # the default model has
    ("estimator", "trace_tmc"): ["estimator.strict_enumeration_warning=false"],  # nothing to enumerate
    ("partition", "groups"): ["partition.groups={slow:{glob:'*.scales.*',lr_factor:0.1},other:{kind:rest}}"],
    ("guide", "own"): ["model=digits_vae"],
    ("model", "digits_sbn"): ["guide=own", "estimator=trace_graph"],
    ("model", "posteriordb"): ["model.posterior=arK"],
    **{("preset", name): ["model=eight_schools"] for name in config.options("preset")},  # flows take long to trace
    ("optimizer", "lbfgs"): ["engine.noise=fixed"],
    ("optimizer", "newton"): ["engine.noise=fixed"],
    ("scheduler", "torch"): ["scheduler.scheduler=CosineAnnealingLR", "scheduler.arguments={T_max:100}"],
}
PATHS = {
    "model": [
        f"model.path={Path(__file__).parent / 'programs/raw_param.py'}:model",
        f"model.data={Path(__file__).parent / 'programs/raw_param.py'}:data",
    ],
    "guide": [f"guide.path={Path(__file__).parent / 'programs/raw_param.py'}:guide"],
}


def overrides(group, name):
    words = [
        f"{group}={name}",
        "engine.steps=3",
        "engine.score_draws=2",
        "engine.posterior_draws=0",
        *REQUIRED.get((group, name), []),
    ]
    if name != "custom":
        return words
    return [*words, "model=custom", *PATHS["model"], *(PATHS["guide"] if group == "guide" else [])]


def marked(group, name):
    slow = group == "preset" and "real_nvp" in str(PORTFOLIO.get(name))
    return pytest.param(group, name, marks=[pytest.mark.long] if slow else [], id=f"{group}-{name}")


@pytest.mark.parametrize(("group", "name"), [marked(*option) for option in OPTIONS])
def test_composes_builds_and_steps(group, name, tmp_path, monkeypatch):
    if "posteriordb" in name:
        monkeypatch.chdir(tmp_path)
        made_up(tmp_path / "posteriordb")
    made = config.compose(dict.fromkeys(overrides(group, name)))
    assert made.problems == []
    if group == "distributed" and name != "none":
        # They step in tests/test_distributed.py, on two processes.
        with pytest.raises(ConfigError, match=r"one process was started|needs the package|needs engine\.device=cuda"):
            recipe.build(made.config)
        return
    result = runs.run(recipe.build(made.config), None)
    assert result.status == "finished"
    assert result.losses.isfinite().all()
    again = config.compose(
        [word for word in overrides(group, name) if ".path=" in word or ".data=" in word], base=result.config
    )
    assert again.problems == []
    assert again.config == result.config


def test_every_component_has_a_file_and_every_file_a_component():
    for group in registry.GROUPS:
        assert sorted(registry.names(group)) == config.options(group)
    assert config.groups() == (*registry.GROUPS, *config.SWEEPING, *config.SELECTIONS)


@pytest.mark.parametrize("row", registry.rows(), ids=lambda row: f"{row.group}-{row.name}")
def test_a_file_says_what_the_class_says(row):
    """Same keys, same order, same defaults; a comment on each."""
    text = (config.conf_dir() / row.group / f"{row.name}.yaml").read_text()
    written = yaml.safe_load(text)
    searched = written.pop(config.SEARCH, {})
    assert set(searched) <= {spec.name for spec in row.specs()}
    assert list(written) == ["name", *(spec.name for spec in row.specs())]
    assert written.pop("name") == row.name
    for spec in row.specs():
        if spec.required:
            assert written[spec.name] == "???"
        else:
            default = registry.plain(spec.default, spec.key.component)
            assert yaml_text(complete(spec, written[spec.name])) == yaml_text(default)
    every_key_has_a_comment(text)


def every_key_has_a_comment(text):
    for line in text.splitlines():
        if re.match(r" *[a-z_.]+:", line) and not line.startswith("name:") and "- name:" not in line:
            assert " # " in line, f"{line} has no comment"


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in SWEEPING for name in config.options(group)], ids=str
)
def test_a_file_of_a_sweep_says_what_the_class_says(group, name):
    text = (config.conf_dir() / group / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    every_key_has_a_comment(text)
    written = yaml.safe_load(text)
    specs = keys_of(SWEEPING[group])
    assert list(written) == [spec.name for spec in specs]
    SWEEPING[group](**written)
    if (group, name) in (("sweep", "default"), ("workers", "local")):
        assert SWEEPING[group](**written) == SWEEPING[group]()


def test_what_sweeps_need_is_no_part_of_a_fits_configuration():
    made = config.compose(["optimizer=adam", "sweep=quick", "sweep.seed=3"])
    assert tuple(made.config) == registry.GROUPS
    assert config.SEARCH not in made.config["optimizer"]
    assert made.searches["optimizer"].keys() == {"lr"}
    assert (made.sweeping["sweep"]["seed"], made.sweeping["sweep"]["n_trials"]) == (3, 30)


@pytest.mark.parametrize("name", registry.names("optimizer"))
def test_every_optimizers_step_size_is_searched_around_its_default(name):
    made = config.compose([f"optimizer={name}"])
    if name in ("schedule_free_prodigy", "lbfgs", "newton"):
        # They have no step size.
        assert made.searches == {}
        return
    [(key, text)] = made.searches["optimizer"].items()
    domain = domain_of(f"optimizer.{key}={text}")
    assert domain.distribution.log
    low, high, default = domain.distribution.low, domain.distribution.high, made.config["optimizer"][key]
    assert 5 * low <= default <= high / 5


def complete(spec, value):
    """The value of a key as it is written, but for nested components, which files may write without all keys."""
    if isinstance(value, list) and spec.key.component:
        return [registry.plain(registry.build(spec.key.component, node), spec.key.component) for node in value]
    return value


def test_an_earlier_runs_configuration_composes_to_itself():
    first = config.compose(["optimizer=sgd", "optimizer.lr=0.5", "guide=auto_iaf_normal", "engine.seed=7"]).config
    assert config.compose([], base=first).config == first
    changed = config.compose(["optimizer=adam", "engine.seed=8"], base=first).config
    assert changed == {
        **first,
        "optimizer": config.compose(["optimizer=adam"]).config["optimizer"],
        "engine": {**first["engine"], "seed": 8},
    }


def test_a_users_folder_adds_options(tmp_path):
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/careful.yaml").write_text("name: clipped_adam\nlr: 0.001\nclip_norm: 1.0\n")
    assert config.scan(tmp_path) == []
    made = config.compose(["optimizer=careful"], tmp_path)
    assert made.problems == []
    assert made.config["optimizer"] == {"name": "clipped_adam", "lr": 0.001, "clip_norm": 1.0}


def test_what_preset_and_experiment_choose_both_is_asked_for():
    both = ["experiment=radon_uranium", "preset=laplace_flow"]
    said = [str(problem) for problem in config.compose(both).problems]
    assert len(said) == 2
    assert "chooses guide=auto_real_nvp" in said[0]
    assert "experiment=radon_uranium chooses guide=auto_multivariate_normal" in said[0]
    assert "scheduler=cosine" in said[1]
    assert "scheduler=exponential" in said[1]
    made = config.compose([*both, "guide=auto_iaf_normal", "scheduler=cosine"])
    assert made.problems == []
    assert [made.config[group]["name"] for group in ("guide", "scheduler")] == ["auto_iaf_normal", "cosine"]
    # Alike, or where only one of them chooses, there is nothing to ask.
    assert config.compose(["experiment=radon_uranium", "preset=auto"]).problems == []
    assert config.compose(["experiment=posteriordb/arK", "preset=laplace_flow"]).problems == []
