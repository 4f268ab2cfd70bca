"""Names, rows and what they say of themselves."""

from __future__ import annotations

import importlib

import pytest

from sweepvi import catalogue, config, registry
from sweepvi.errors import ConfigError
from sweepvi.keys import Keyed


@pytest.mark.parametrize("row", registry.rows(), ids=lambda row: f"{row.group}-{row.name}")
def test_a_row_is_a_documented_component(row):
    component = row.component()
    assert issubclass(component, Keyed)
    assert row.meaning().endswith(".")
    assert len(row.meaning()) < 110
    assert all(spec.key.meaning for spec in row.specs())


def test_names_are_taken_once():
    with pytest.raises(ValueError, match="registered already"):
        registry.register("optimizer", "adam", "elsewhere:Adam")
    with pytest.raises(ValueError, match="no such group; did you mean optimizer"):
        registry.register("optimiser", "adam", "elsewhere:Adam")


def test_problems_name_key_value_and_what_is_valid():
    problems = registry.check("optimizer", {"name": "clipped_adam", "lr": -1, "clipnorm": 3})
    assert [str(problem) for problem in problems] == [
        "optimizer.clipnorm = 3: no such key; did you mean clip_norm or clip? "
        "valid: betas, centered_variance, clip, clip_norm, eps, lr, lrd, weight_decay",
        "optimizer.lr = -1: must be a number > 0",
    ]
    assert "did you mean clipped_adam" in str(registry.check("optimizer", {"name": "clipped_adm"})[0])


def test_keys_that_conflict_are_a_problem_of_the_group():
    [problem] = registry.check("optimizer", {"name": "sgd", "nesterov": True})
    assert str(problem) == "optimizer.nesterov = True: needs momentum > 0 and dampening = 0"
    with pytest.raises(ConfigError):
        registry.build("optimizer", {"name": "sgd", "nesterov": True})


def test_what_is_refused_says_why_and_what_instead():
    [problem] = registry.check("estimator", {"name": "jit_trace_enum"})
    for part in ("refused", "compiled estimators", "branches", "use trace_enum"):
        assert part in str(problem)


def test_nested_keys_and_components_are_checked_where_they_are():
    problems = registry.check("optimizer", {"name": "adam", "clip": {"value": -1, "nrm": 2}})
    assert [problem.key for problem in problems] == ["optimizer.clip.nrm", "optimizer.clip.value"]
    parts = [{"name": "warmup", "steps": 0}, {"name": "cosin"}, 3, "exponential"]
    problems = registry.check("scheduler", {"name": "product", "parts": parts})
    assert [problem.key for problem in problems] == [
        "scheduler.parts.0.steps",
        "scheduler.parts.1.name",
        "scheduler.parts.2",
    ]


def test_nested_components_describe_themselves_completely():
    made = registry.build("scheduler", {"name": "product", "parts": ["exponential", {"name": "step", "every": 7}]})
    node = registry.described("product", made)
    assert [part["name"] for part in node["parts"]] == ["exponential", "step"]
    assert node["parts"][1]["every"] == 7
    assert registry.build("scheduler", node) == made


def test_a_component_describes_itself_completely():
    rule = registry.build("optimizer", {"name": "adam", "lr": 1})
    node = registry.described("adam", rule)
    assert node == {
        "name": "adam",
        "lr": 1.0,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": 0.0,
        "amsgrad": False,
        "decoupled_weight_decay": False,
        "clip": {"global_norm": None, "norm": None, "value": None},
    }
    assert registry.build("optimizer", node) == rule
    assert registry.name_of("optimizer", rule) == "adam"


def test_components_lists_every_group_option_key_and_default():
    text = catalogue.components()
    for row in registry.rows():
        assert f"  {row.name} - {row.meaning()}" in text
        for _, spec in catalogue.flat_keys(row.specs()):
            assert spec.key.meaning in text
    for group in config.SELECTIONS:
        for name in config.options(group):
            assert f"  {name} - " in text
    assert "clip_norm              10.0" in text
    assert "betas                  [0.9, 0.999]" in text


def test_help_lists_every_option():
    text = catalogue.usage()
    for group in config.groups():
        assert ", ".join(config.options(group)) in text


def test_every_module_imports():
    for path in (config.conf_dir().parent / "sweepvi").rglob("*.py"):
        parts = path.relative_to(config.conf_dir().parent).with_suffix("").parts
        if parts[-1] != "__main__":
            importlib.import_module(".".join(parts).removesuffix(".__init__"))
