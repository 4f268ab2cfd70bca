"""Every shipped model with every guide and estimator, as lanes: captured, or refused for a reason that is written here.

A new row of the registry is tested without further work. Combinations that are no fit at all are left out: those that
sweepvi refuses under every engine. Programs beyond these have ``test_lane_programs.py``.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from lane_parity import agree, agree_with, as_lanes, capture, eagerly, recipe
from posteriordb_data import made_up

import sweepvi
from sweepvi import registry
from sweepvi.engine.lanes.captured import NotCapturedError
from sweepvi.errors import ConfigError

INVERSE = r"affine_autoregressive.py:\d+: branches on the value of a tensor"
REFUSED = {f"auto_iaf_normal-{estimator}": INVERSE for estimator in ("stl", "dreg", "tail_adaptive")}
"""Guide and estimator, with every model → what the refusal says. They ask the flow for its inverse."""

MODELS = [name for name in registry.names("model") if name != "custom"]
GUIDES = [name for name in registry.names("guide") if name != "custom"]
ESTIMATORS = registry.names("estimator")
CHEAPEST = "eight_schools"
ENGINE = {"steps": 1, "seed": 3}
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}
"""Of gradients."""
SAME = {"float32": 1e-5, "float64": 1e-10}
"""Of losses and parameters after some steps."""


def keys_of(group, name):
    return {spec.name: spec.default for spec in next(r for r in registry.rows(group) if r.name == name).specs()}


@cache
def made_up_posteriors():
    """A folder with a little data for every posterior of posteriordb."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return made_up(folder / "posteriordb")


def model_node(name):
    """A model at a size at which a test is quick: minibatches where it has them."""
    if name == "posteriordb":
        return {"name": name, "posterior": "kidscore_interaction", "folder": str(made_up_posteriors())}
    small = {"batch_size": 16, "hidden": [6, 4] if name == "digits_sbn" else [6], "latent": 2}
    return {"name": name, **{key: value for key, value in small.items() if key in keys_of("model", name)}}


def estimator_node(name):
    """An estimator with few particles: a step is as long as there are of them."""
    return {"name": name, **({"num_particles": 2} if (keys_of("estimator", name)["num_particles"] or 1) > 2 else {})}


def fit(model, guide, estimator, **changes):
    return recipe(
        model_node(model),
        guide=guide,
        estimator=estimator_node(estimator),
        **{**changes, "engine": {**ENGINE, **changes.get("engine", {})}},
    )


def captures(model, guide, monkeypatch, dtype="float64", traced=False):
    """By estimator: what becomes of the fit, of those that are one."""
    found = {}
    for estimator in ESTIMATORS:
        refused = f"{guide}-{estimator}" in REFUSED
        if refused and not traced and model != CHEAPEST:
            continue  # Inverting a flow of hundreds of dimensions takes its time.
        try:
            made = fit(model, guide, estimator, engine={"dtype": dtype})
            found[estimator] = capture(made, monkeypatch, traced or refused)
        except ConfigError:
            continue
    return found


def demand_as_written(guide, found, dtype="float64"):
    for estimator, capture_ in found.items():
        expected = REFUSED.get(f"{guide}-{estimator}", "captured")
        assert re.fullmatch(expected, capture_.outcome), f"{guide}-{estimator}: {capture_.outcome}"
        assert capture_.worst <= TOLERANCE[dtype], f"{guide}-{estimator}: gradients differ by {capture_.worst:.2g}"


FLOWS = ("auto_iaf_normal", "auto_real_nvp")


def quick_or_long(model, guide):
    """Flows of many variables take their time."""
    marks = [pytest.mark.long] if guide in FLOWS and model != CHEAPEST else []
    return pytest.param(model, guide, marks=marks, id=f"{model}-{guide}")


@pytest.mark.parametrize(("model", "guide"), [quick_or_long(model, guide) for model in MODELS for guide in GUIDES])
def test_captured_or_refused_as_written(model, guide, monkeypatch):
    """And gradients are Pyro's."""
    demand_as_written(guide, captures(model, guide, monkeypatch))


@pytest.mark.parametrize("guide", GUIDES)
def test_gradients_in_float32_are_pyros(guide, monkeypatch):
    demand_as_written(guide, captures(CHEAPEST, guide, monkeypatch, "float32"), "float32")


def test_no_row_is_left_out(monkeypatch):
    """Each model, guide and estimator is in a fit that is captured; but for estimators that sum over variables."""
    rows = lane_rows()
    assert {model for model, _, _ in rows} == set(MODELS)
    assert {guide for _, guide, _ in rows} == set(GUIDES)
    assert set(ESTIMATORS) - {estimator for _, _, estimator in rows} == {"trace_enum", "trace_tmc"}
    unknown = [row for row in REFUSED if not set(row.split("-")) <= {*GUIDES, *ESTIMATORS}]
    assert unknown == []


def is_a_fit(model, guide, estimator):
    """Whether sweepvi takes it, by name alone."""
    try:
        fit(model, guide, estimator)
    except ConfigError:
        return False
    return True


def lane_rows():
    """Fits in which each model, guide and estimator is once, those that sum over variables of the model left out."""
    plain = [name for name in ESTIMATORS if name not in ("trace_enum", "trace_tmc")]
    rows = [(CHEAPEST, "auto_diagonal_normal", estimator) for estimator in plain]
    rows += [(CHEAPEST, guide, "trace") for guide in GUIDES if is_a_fit(CHEAPEST, guide, "trace")]
    for model in MODELS:
        guide = "own" if is_a_fit(model, "own", "trace_graph") else "auto_normal"
        rows.append((model, guide, "trace_graph"))
    return list(dict.fromkeys(rows))


SEEDED = "networks have buffers that differ between seeds"
"""What is said of several seeds of a flow: each has an order of variables of its own."""


def eight(row, steps, **engine):
    """Fits that differ in their seeds; those of a flow whose layers are drawn, in their step sizes."""
    if row[1] == "auto_iaf_normal":
        rates = [{"name": "clipped_adam", "lr": 0.001 * (lane + 1)} for lane in range(8)]
        return [fit(*row, optimizer=rate, engine={"steps": steps, **engine}) for rate in rates]
    # With the usual step size, one of uk_drivers goes to a loss of 1e7, and Pyro's own fit from one rounding beside
    # is 2e-10 off.
    small = {"optimizer": {"name": "clipped_adam", "lr": 0.001}} if row[1] == "auto_real_nvp" else {}
    return [fit(*row, **small, engine={"steps": steps, "seed": seed, **engine}) for seed in range(8)]


LONG_TO_TRACE = {"iwae", "vimco", "renyi", "reweighted_wake_sleep", "mmd", "uk_drivers"}


def marked(row):
    return pytest.param(row, id="-".join(row), marks=[pytest.mark.long] if LONG_TO_TRACE & {*row} else [])


@pytest.mark.parametrize("row", [marked(row) for row in lane_rows()])
def test_a_lane_of_eight_is_the_eager_fit(row):
    recipes = eight(row, 20)
    agree(as_lanes(recipes)[5], *eagerly(recipes[5], 20), SAME["float64"])


def test_flows_of_several_seeds_are_no_lanes():
    with pytest.raises(NotCapturedError, match=SEEDED):
        as_lanes([fit(CHEAPEST, "auto_iaf_normal", "trace", engine={"seed": seed}) for seed in (1, 2)])


LANES_PAGE = (Path(__file__).parents[1] / "docs" / "lanes.md").read_text(encoding="utf-8")


def test_the_page_has_the_exceptions_and_what_is_said_of_them():
    table = LANES_PAGE.partition("| guide | estimator | because |")[2].partition("\n\n")[0]
    written = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert {f"{guide}-{each}" for guide, cell in written for each in re.findall(r"`(\w+)`", cell)} == set(REFUSED)
    [said] = re.findall(r"^```text\nsweepvi: (.*)\n```$", LANES_PAGE, re.MULTILINE)
    with pytest.raises(ConfigError) as refused:
        sweepvi.fit(CHEAPEST, guide="auto_iaf_normal", estimator="stl", engine="lanes", restarts=1)
    assert str(refused.value).splitlines()[-1].removeprefix("  - ") == said


SMOOTH, NETWORK = (CHEAPEST, "auto_multivariate_normal", "stl"), ("digits_vae", "own", "trace")


@pytest.mark.parametrize("row", [SMOOTH, NETWORK], ids="-".join)
def test_equal_numbers_of_lanes_have_equal_bits_and_one_lane_is_the_same_fit(row):
    recipes = eight(row, 40)
    first, second = as_lanes(recipes)[2], as_lanes(recipes[::-1])[-3]
    assert torch.equal(first.losses, second.losses)
    assert all(torch.equal(value, second.snapshot.tensors[name]) for name, value in first.snapshot.tensors.items())
    agree_with(first, as_lanes(recipes[2:3])[0], SAME["float64"])


def test_float32_over_200_steps():
    [made] = [fit(*SMOOTH, engine={"steps": 200, "dtype": "float32"})]
    agree(as_lanes([made])[0], *eagerly(made, 200), SAME["float32"])


def test_a_network_in_float32_amplifies_roundings_and_lanes_are_no_further_off():
    """Pyro's own fit, begun one rounding beside, ends as far away."""
    [made] = [fit(*NETWORK, engine={"steps": 200, "dtype": "float32"})]
    losses, _ = eagerly(made, 200)
    beside, _ = eagerly(made, 200, nudge=torch.finfo(torch.float32).eps)
    own, lanes = ((other - losses).abs().max() / losses.abs().max() for other in (beside, as_lanes([made])[0].losses))
    assert own > 10 * SAME["float32"]
    assert lanes < 10 * own


@pytest.mark.long
def test_float64_over_2000_steps():
    [made] = [fit(CHEAPEST, "auto_normal", "trace", engine={"steps": 2000})]
    agree(as_lanes([made])[0], *eagerly(made, 2000), SAME["float64"])


LONGER = [SMOOTH, ("radon", "auto_normal", "trace"), ("uk_drivers", "auto_normal", "trace"), NETWORK]


@pytest.mark.long
@pytest.mark.parametrize("row", LONGER, ids="-".join)
def test_float64_over_2000_steps_but_for_what_roundings_grow_to(row):
    """At each step, as close as two of Pyro's own fits that begin one rounding apart, within a factor."""
    [made] = [fit(*row, engine={"steps": 2000})]
    losses, _ = eagerly(made, 2000)
    beside, _ = eagerly(made, 2000, nudge=torch.finfo(torch.float64).eps)
    size = losses.abs().cummax(0).values
    own = ((beside - losses).abs() / size).cummax(0).values
    lanes = (as_lanes([made])[0].losses - losses).abs() / size
    assert (lanes <= SAME["float64"] + 100 * own).all(), f"{float(lanes.max()):.2g} beside {float(own.max()):.2g}"


@pytest.mark.long
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("model", MODELS)
def test_every_row_as_lanes(model, guide, estimator):
    row = (model, guide, estimator)
    if not is_a_fit(*row):
        pytest.skip("no fit at all")
    recipes = eight(row, 20)
    try:
        outcomes, outcome = as_lanes(recipes), "captured"
    except ConfigError:
        pytest.skip("no fit at all")
    except NotCapturedError as error:
        outcomes, outcome = [], str(error)
    assert re.fullmatch(REFUSED.get(f"{guide}-{estimator}", "captured"), outcome)
    if outcomes:
        agree(outcomes[5], *eagerly(recipes[5], 20), SAME["float64"])
        agree_with(outcomes[5], as_lanes(recipes[5:6])[0], SAME["float64"])
