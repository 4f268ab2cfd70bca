"""A fit depends on nothing but its arguments, changes nothing but its result, and says what it cannot do."""

from __future__ import annotations

import csv
import functools
import gc
import itertools
import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from programs import nets
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import nn
from torch.distributions import constraints

import sweepvi
from sweepvi.cli import main
from sweepvi.errors import CheckpointError, ConfigError, DivergedError
from sweepvi.partition import Group, Partition, Place
from sweepvi.schedule import Schedule

QUICK = {"steps": 12, "score_draws": 3}
FEW = {"steps": 5, "score_draws": 0}
X = torch.linspace(-1.0, 3.0, 20)
ROWS = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)


def conjugate(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def problems_of(*arguments, **keywords):
    with pytest.raises(ConfigError) as caught:
        sweepvi.fit(*arguments, **FEW, **keywords)
    return [problem.key for problem in caught.value.problems]


def assert_same(left, right):
    assert left.status == right.status
    assert torch.equal(left.losses, right.losses)
    torch.testing.assert_close(left.rates, right.rates, rtol=0, atol=0, equal_nan=True)
    assert left.elbo == right.elbo
    assert left.params.keys() == right.params.keys()
    assert all(torch.equal(left.params[name], value) for name, value in right.params.items())


# Networks, wherever they are.


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


ENCODER = network()


def local(rows, **_):
    with pyro.plate("data", len(rows)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("rows", dist.Normal(z[:, None], 1.0).expand([len(rows), 3]).to_event(1), obs=rows)


def encode(net, rows, name="net"):
    pyro.module(name, net)
    loc, log_scale = net(rows).unbind(-1)
    return loc, log_scale.exp()


def draw_z(loc, scale):
    with pyro.plate("data", len(loc)):
        pyro.sample("z", dist.Normal(loc, scale))


def of_closure():
    net = network()
    return [net], {"guide": lambda rows: draw_z(*encode(net, rows))}


def global_guide(rows):
    draw_z(*encode(ENCODER, rows))


def of_global():
    return [ENCODER], {"guide": global_guide}


def imported_guide(rows):
    draw_z(*encode(nets.net, rows))


def of_imported_module():
    return [nets.net], {"guide": imported_guide}


class ModuleGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, rows):
        loc, log_scale = self.net(rows).unbind(-1)
        draw_z(loc, log_scale.exp())


def of_pyro_module():
    guide = ModuleGuide()
    return [guide], {"guide": guide}


def of_class_attribute():
    class Programs:
        net = network()

        def model(self, rows):
            return local(rows)

        def guide(self, rows):
            draw_z(*encode(self.net, rows))

    programs = Programs()
    return [Programs.net], {"model": programs.model, "guide": programs.guide}


def of_argument():
    net = network()
    return [net], {"guide": lambda rows, net: draw_z(*encode(net, rows)), "kwargs": {"net": net}}


def of_colliding_keys():
    table = {1: network(), "1": network()}

    def guide(rows):
        loc, _ = encode(table[1], rows, "number")
        draw_z(loc, encode(table["1"], rows, "text")[1])

    return [*table.values()], {"guide": guide}


def tensors(networks):
    """Every parameter and buffer, and what each is."""
    named = [(i, *item) for i, net in enumerate(networks) for item in [*net.named_parameters(), *net.named_buffers()]]
    return {(i, name): tensor.detach().clone() for i, name, tensor in named}


def assert_untouched(networks, before):
    now = tensors(networks)
    assert now.keys() == before.keys()
    for name, value in before.items():
        assert now[name].dtype == value.dtype, name
        assert torch.equal(now[name], value), name
    assert all(param.grad is None and param.requires_grad for net in networks for param in net.parameters())


PLACES = [
    of_closure,
    of_global,
    of_imported_module,
    of_pyro_module,
    of_class_attribute,
    of_argument,
    of_colliding_keys,
]


@pytest.mark.parametrize("place", PLACES)
def test_a_network_is_left_as_it_was_wherever_it_is(place):
    networks, given = place()
    given = {"model": local, "args": (ROWS,), **given}
    before = tensors(networks)
    first = sweepvi.fit(**given, **QUICK)
    assert_untouched(networks, before)
    assert_same(sweepvi.fit(**given, **QUICK), first)
    assert_untouched(networks, before)
    trained = [value for name, value in first.params.items() if name.endswith("0.weight")]
    assert len(trained) == len(networks)
    assert not any(torch.equal(value, other) for value in trained for other in before.values())
    double = sweepvi.fit(**given, **QUICK, dtype="float64")
    assert double.status == "finished"
    assert {value.dtype for value in double.params.values()} == {torch.float64}
    assert_untouched(networks, before)
    assert set(first.sample(2)) == {"z"}
    assert_untouched(networks, before)


def test_an_autoguide_that_has_run_is_left_as_it_was():
    guide = AutoNormal(conjugate)
    guide(X)
    pyro.clear_param_store()
    before = tensors([guide])
    fits = [sweepvi.fit(conjugate, (X,), guide=guide, **QUICK) for _ in range(2)]
    assert_same(*fits)
    assert before
    assert_untouched([guide], before)


class Slotted:
    __slots__ = ("net",)


def through_slots(net):
    holder = Slotted()
    holder.net = net
    return lambda: holder.net


def through_cached_call(net):
    made = functools.lru_cache(functools.partial(next, iter([net])))
    made()
    return made


def through_deque(net):
    queue = deque([net])
    return lambda: queue[0]


def through_garbage_collector(net):
    mark = net.mark

    def find():
        return next(thing for thing in gc.get_objects() if type(thing) is Hidden and thing.mark == mark)

    return find


class Hidden(nn.Linear):
    mark = math.nan


@pytest.mark.parametrize("hide", [through_slots, through_cached_call, through_deque, through_garbage_collector])
def test_the_parameters_of_a_hidden_network_are_left_as_they_were(hide):
    net = Hidden(3, 2)
    net.mark = net.weight[0, 0].item()
    get_net = hide(net)

    def guide(rows):
        draw_z(*encode(get_net(), rows))

    before = tensors([net])
    fits = [sweepvi.fit(local, (ROWS,), guide=guide, **QUICK) for _ in range(2)]
    assert_same(*fits)
    assert not torch.equal(fits[0].params["net$$$weight"], before[0, "weight"])
    after = tensors([net])
    assert all(torch.equal(after[name], value) for name, value in before.items())


class Regression(PyroModule):
    def __init__(self, linear):
        super().__init__()
        self.lin = linear(3, 1)

    def forward(self, rows):
        noise = pyro.sample("noise", dist.LogNormal(0.0, 1.0))
        mean = self.lin(rows).squeeze(-1)
        with pyro.plate("data", len(rows)):
            pyro.sample("y", dist.Normal(mean, noise), obs=rows.sum(-1))


@pytest.mark.parametrize(("linear", "name"), [(PyroModule[nn.Linear], "lin.weight"), (nn.Linear, "lin$$$weight")])
def test_fitted_networks_are_at_hand(linear, name):
    model = Regression(linear)
    own = model.lin.weight.detach().clone()
    result = sweepvi.fit(model, (ROWS,), **QUICK)
    fitted = result.params[name]
    assert not torch.equal(fitted, own)
    assert torch.equal(result.model.lin.weight, fitted)
    with result.fitted():
        assert torch.equal(model.lin.weight, fitted)
    assert torch.equal(model.lin.weight, own)
    with pytest.raises(KeyError), result.fitted():
        raise KeyError
    assert torch.equal(model.lin.weight, own)
    assert torch.equal(result.model.lin.weight, fitted)


def test_data_is_left_as_it_was():
    def model(x, more):
        for tensor in (x, *more):
            tensor.add_(1.0)
        conjugate(x)

    numpy, nested = X.numpy().copy(), X.clone()
    for data in (X.clone(), numpy):
        fits = [sweepvi.fit(model, (data, [nested]), **QUICK) for _ in range(2)]
        assert_same(*fits)
        assert np.array_equal(data, X.numpy())
        assert torch.equal(nested, X)
        fits[0].sample(1)
        assert np.array_equal(data, X.numpy())


def test_threads_fit_as_if_alone():
    def one(seed):
        return sweepvi.fit(conjugate, (X,), seed=seed, dtype="float64" if seed == 1 else "float32", **QUICK)

    lone = [one(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(one, [0, 1, 2] * 4))
    for left, right in zip(lone * 4, together, strict=True):
        assert left.status == "finished"
        assert_same(left, right)
    assert len(pyro.get_param_store()) == 0


# Folders.


def test_a_refused_resumption_changes_nothing(tmp_path):
    sweepvi.fit("eight_schools", folder=tmp_path, **QUICK)
    before = files(tmp_path)
    for wrong in ({"optimizer": "sgd"}, {"steps": QUICK["steps"] - 1}):
        with pytest.raises(CheckpointError):
            sweepvi.fit("eight_schools", folder=tmp_path, resume=True, **{**QUICK, **wrong})
        assert files(tmp_path) == before
    assert sweepvi.FitResult.load(tmp_path).status == "finished"


@pytest.mark.parametrize("resume", [False, True])
def test_a_model_that_does_not_run_leaves_no_folder(tmp_path, resume):
    def bad(x):
        raise RuntimeError("not on this data")

    with pytest.raises(ConfigError, match="not on this data"):
        sweepvi.fit(bad, (X,), folder=tmp_path / "run", resume=resume, **FEW)
    assert not (tmp_path / "run").exists()


def test_a_result_is_not_saved_over_a_run(tmp_path):
    sweepvi.fit("eight_schools", folder=tmp_path, **QUICK)
    before = files(tmp_path)
    with pytest.raises(ConfigError):
        sweepvi.fit("eight_schools", seed=1, **QUICK).save(tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("pack", [lambda x: {"args": (x,)}, lambda x: {"kwargs": {"x": x}}], ids=["args", "kwargs"])
def test_only_the_same_data_resumes(tmp_path, pack):
    sweepvi.fit(conjugate, **pack(X), folder=tmp_path, **FEW)
    before = files(tmp_path)
    with pytest.raises(CheckpointError):
        sweepvi.fit(conjugate, **pack(X + 1), folder=tmp_path, resume=True, **QUICK)
    assert files(tmp_path) == before
    resumed = sweepvi.fit(conjugate, **pack(X.clone()), folder=tmp_path, resume=True, **QUICK)
    assert_same(resumed, sweepvi.fit(conjugate, **pack(X), **QUICK))


# Steps that fail.


class Trouble:
    """A model and a guide; once, between two sample statements of the model, something happens.

    The model may be ``"plain"``; it may have a ``"buffer"`` that every call changes, as batch normalisation does; it
    may have a parameter that is drawn ``"late"``, in the very call in which something happens.
    """

    def __init__(self, what=None, kind="plain"):
        self.what, self.kind, self.calls = what, kind, itertools.count(1)
        self.counter = nn.Module()
        self.counter.register_buffer("calls", torch.zeros(()))

    def model(self, x):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        scale, now = 1.0, next(self.calls) == 8
        if self.kind == "late":
            now = torch.rand(()) < 0.15
            if now:
                scale = pyro.param("late", lambda: 0.5 + torch.rand(()), constraint=constraints.positive)
        if now and self.what is not None:
            what, self.what = self.what, None
            what()
        other = pyro.sample("other", dist.Normal(mean, scale))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(other, 1.0), obs=x)

    def guide(self, x):
        if self.kind == "buffer":
            self.counter.calls.add_(1.0)
        for name in ("mean", "other"):
            loc = pyro.param(f"{name}_loc", torch.tensor(0.0))
            scale = pyro.param(f"{name}_scale", lambda: 0.5 + torch.rand(()), constraint=constraints.positive)
            pyro.sample(name, dist.Normal(loc, scale + 0.01 * self.counter.calls))

    def fit(self, **settings):
        return sweepvi.fit(self.model, (X,), guide=self.guide, **{**QUICK, **settings})


def fails_with(error):
    def fail():
        raise error

    return fail


def is_nan():
    pyro.factor("bad", torch.tensor(math.nan))


def is_invalid():
    pyro.sample("noise", dist.Normal(0.0, torch.tensor(-1.0)))


@pytest.mark.parametrize("kind", ["plain", "buffer", "late"])
@pytest.mark.parametrize("error", [KeyError("a bug"), KeyboardInterrupt()], ids=["KeyError", "KeyboardInterrupt"])
def test_a_step_that_raised_is_taken_anew(tmp_path, error, kind):
    trouble = Trouble(fails_with(error), kind)
    with pytest.raises(type(error)):
        trouble.fit(folder=tmp_path)
    assert_same(trouble.fit(folder=tmp_path, resume=True), Trouble(kind=kind).fit())


@pytest.mark.parametrize("kind", ["plain", "buffer", "late"])
@pytest.mark.parametrize("what", [is_nan, is_invalid])
def test_a_step_that_diverged_is_taken_anew(tmp_path, what, kind):
    trouble = Trouble(what, kind)
    diverged = trouble.fit(folder=tmp_path)
    assert diverged.status == "diverged"
    assert 1 < diverged.steps < QUICK["steps"]
    assert_same(trouble.fit(folder=tmp_path, resume=True), Trouble(kind=kind).fit())


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip", "raise"])
def test_an_error_of_the_users_is_no_divergence(on_nonfinite):
    with pytest.raises(ValueError, match="too many values to unpack"):
        Trouble(fails_with(ValueError("too many values to unpack"))).fit(on_nonfinite=on_nonfinite)


def test_an_invalid_distribution_is_a_divergence():
    step = Trouble(is_invalid).fit().steps + 1
    skipping = Trouble(is_invalid).fit(on_nonfinite="skip")
    assert (skipping.status, skipping.skipped) == ("finished", [step])


def test_parameters_that_become_infinite_are_a_divergence():
    far = {"optimizer": {"name": "sgd", "lr": 1e38}, "steps": 1, "score_draws": 0}
    result = sweepvi.fit(conjugate, (X,), **far)
    assert result.status == "diverged"
    assert result.message
    with pytest.raises(DivergedError) as caught:
        sweepvi.fit(conjugate, (X,), on_nonfinite="raise", **far)
    assert isinstance(caught.value.result, sweepvi.FitResult)
    assert caught.value.result.status == "diverged"


# Step sizes.


def test_a_left_out_step_counts_for_the_rates():
    """The gradient is -1 always, so that Adam moves the parameter by just the step size."""
    calls = itertools.count(1)

    def model():
        pyro.factor("slope", pyro.param("loc", torch.tensor(0.0)))
        if next(calls) == 6:
            is_nan()

    lr, lrd, steps = 0.5, 0.9, 12
    result = sweepvi.fit(
        model,
        guide=lambda: None,
        optimizer={"name": "clipped_adam", "lr": lr, "lrd": lrd},
        on_nonfinite="skip",
        steps=steps,
        score_draws=0,
        dtype="float64",
    )
    assert len(result.skipped) == 1
    assert 1 < result.skipped[0] < steps
    assert result.rates["all"].tolist() == pytest.approx([lr * lrd ** (k + 1) for k in range(steps)], rel=1e-12)
    taken = [rate for step, rate in enumerate(result.rates["all"].tolist(), 1) if step not in result.skipped]
    assert result.params["loc"].item() == pytest.approx(sum(taken), rel=1e-6)


def test_a_given_optimizers_own_step_size_is_kept(tmp_path):
    from pyro.optim.clipped_adam import ClippedAdam

    def decaying(groups):
        return ClippedAdam(groups, lr=0.05, lrd=0.8)

    whole = sweepvi.fit(conjugate, (X,), optimizer=decaying, **QUICK)
    rule = sweepvi.fit(conjugate, (X,), optimizer={"name": "clipped_adam", "lr": 0.05, "lrd": 0.8}, **QUICK)
    torch.testing.assert_close(whole.losses, rule.losses, rtol=1e-5, atol=0.0)
    assert (whole.rates["all"].diff() < 0).all()
    sweepvi.fit(conjugate, (X,), optimizer=decaying, folder=tmp_path, **FEW)
    assert_same(sweepvi.fit(conjugate, (X,), optimizer=decaying, folder=tmp_path, resume=True, **QUICK), whole)


@dataclass(frozen=True)
class ByName(Partition):
    """Late parameters, and the others."""

    def places(self):
        late, early = Group(glob="late*", optimizer={"lr": 0.03}), Group(kind="rest")
        return {"late": Place(late, "late", required=False), "early": Place(early, "", required=False)}


def appears_late():
    """A guide that has a second parameter from its tenth call on."""
    counter = nn.Module()
    counter.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def guide(x):
        counter.calls.add_(1)
        loc, scale = pyro.param("loc", torch.tensor(0.0)), 0.5
        if counter.calls >= 10:
            scale = pyro.param("late_scale", lambda: 0.5 + torch.rand(()), constraint=constraints.positive)
        pyro.sample("mean", dist.Normal(loc, scale))

    return guide


LATE = {
    "partition": ByName(),
    "optimizer": {"name": "clipped_adam", "lr": 0.05, "lrd": 0.9},
    "scheduler": {"name": "plateau", "patience": 2, "gamma": 0.7},
    "score_draws": 3,
}


@pytest.mark.parametrize("split", [5, 8, 9, 10, 15])
def test_a_group_that_appears_late_resumes(tmp_path, split):
    """Also if a checkpoint is written after a resumption before the group is there again."""
    guide = appears_late()
    whole = sweepvi.fit(conjugate, (X,), guide=guide, steps=20, **LATE)
    assert whole.params.keys() == {"loc", "late_scale"}
    part, again = (
        sweepvi.fit(conjugate, (X,), guide=guide, steps=split, folder=tmp_path, resume=True, **LATE) for _ in range(2)
    )
    assert_same(again, part)
    assert_same(sweepvi.fit(conjugate, (X,), guide=guide, steps=20, folder=tmp_path, resume=True, **LATE), whole)


def test_a_loaded_result_has_the_values_of_parameters_that_appear_late(tmp_path):
    guide = appears_late()
    result = sweepvi.fit(conjugate, (X,), guide=guide, steps=20, folder=tmp_path, **LATE)
    loaded = sweepvi.FitResult.load(tmp_path, conjugate, (X,), guide=appears_late())
    assert torch.equal(loaded.sample(5)["mean"], result.sample(5)["mean"])
    assert_same(loaded, result)


@dataclass(frozen=True)
class Falling(Schedule):
    """A schedule of the user's own."""

    def at(self, time, state):
        return 1 / (1 + time)


def test_a_run_with_a_schedule_and_a_partition_of_ones_own_is_loaded(tmp_path):
    how = {**LATE, "scheduler": Falling(), "guide": appears_late()}
    result = sweepvi.fit(conjugate, (X,), steps=15, folder=tmp_path / "run", **how)
    loaded = sweepvi.FitResult.load(tmp_path / "run", conjugate, (X,), guide=appears_late())
    assert torch.equal(loaded.sample(3)["mean"], result.sample(3)["mean"])
    loaded.save(tmp_path / "copy")
    again = sweepvi.fit(conjugate, (X,), steps=20, folder=tmp_path / "copy", resume=True, **how)
    assert_same(again, sweepvi.fit(conjugate, (X,), steps=20, **how))


def test_an_optimizer_of_ones_own_keeps_what_it_keeps_in_its_groups(tmp_path):
    class Warming(torch.optim.Adam):
        """Adam whose first beta rises as it goes."""

        def step(self, closure=None):
            for group in self.param_groups:
                group["betas"] = (0.5 * group["betas"][0] + 0.45, group["betas"][1])
            super().step(closure)

    def made(groups):
        return Warming(groups, lr=0.05, betas=(0.0, 0.99))

    whole = sweepvi.fit(conjugate, (X,), optimizer=made, **QUICK)
    sweepvi.fit(conjugate, (X,), optimizer=made, folder=tmp_path, **FEW)
    assert_same(sweepvi.fit(conjugate, (X,), optimizer=made, folder=tmp_path, resume=True, **QUICK), whole)


def test_an_optimizer_of_ones_own_takes_in_parameters_that_appear_late():
    made = []

    def adam(groups):
        made.append(torch.optim.Adam(groups, lr=0.05))
        return made[-1]

    result = sweepvi.fit(conjugate, (X,), guide=appears_late(), optimizer=adam, steps=20, score_draws=3)
    [optimizer] = made
    assert result.params.keys() == {"loc", "late_scale"}
    assert len(optimizer.param_groups[0]["params"]) == len(optimizer.state) == 2


def test_an_optimizer_of_ones_own_must_be_over_all_parameters():
    with pytest.raises(sweepvi.ConfigError, match=r"must be over all 2 parameters.*is over 1"):
        sweepvi.fit(
            conjugate, (X,), optimizer=lambda groups: torch.optim.Adam(groups[0]["params"][:1], lr=0.1), **QUICK
        )


@pytest.mark.parametrize("kind", ["given", "rule"])
def test_a_tensor_that_is_replaced_leaves_nothing_behind(kind):
    made = []

    def adam(groups):
        made.append(torch.optim.Adam(groups, lr=0.1))
        return made[-1]

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.get_param_store()["loc"] = loc.detach().clone()
        pyro.sample("mean", dist.Normal(pyro.param("loc"), 0.5))

    optimizer = adam if kind == "given" else {"name": "adam", "lr": 0.1}
    result = sweepvi.fit(conjugate, (X,), guide=guide, optimizer=optimizer, steps=30, score_draws=3)
    assert result.params["loc"].abs() > 0.5
    for own in made:
        assert len(own.param_groups[0]["params"]) == 1
        assert len(own.state) == 1


def test_a_step_left_out_is_no_better_to_a_plateau():
    """Of epochs of four steps, the last is left out each time: there is nothing to compare, and that is no better."""
    calls = itertools.count()

    def model():
        pyro.factor("slope", pyro.param("loc", torch.tensor(0.0)))
        if next(calls) % 4 == 0 and calls.__reduce__()[1][0] > 2:
            is_nan()

    plateau = {"name": "plateau", "interval": "epoch", "steps_per_epoch": 4, "patience": 1, "threshold_mode": "abs"}
    how = {"guide": lambda: None, "on_nonfinite": "skip", "score_draws": 0, "steps": 40}
    result = sweepvi.fit(model, optimizer={"name": "sgd", "lr": 1e-9}, scheduler=plateau, **how)
    assert len(result.skipped) > 5
    assert result.rates["all"][-1] < result.rates["all"][0]


# Arguments that cannot be fitted.


class NeedsSize:
    def __init__(self, size):
        self.size = size


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"optimizer": pyro.optim.Adam({"lr": 0.01})}, "optimizer"),
        ({"optimizer": torch.optim.Adam([torch.zeros(1, requires_grad=True)])}, "optimizer"),
        ({"optimizer": lambda groups: torch.optim.LBFGS(groups)}, "optimizer"),
        ({"optimizer": torch.optim.LBFGS}, "optimizer"),
        ({"estimator": pyro.infer.Trace_ELBO()}, "estimator"),
        ({"args": torch.randn(1, 5)}, "args"),
        ({"model": NeedsSize}, "model"),
    ],
    ids=["pyro-optim", "torch-instance", "lbfgs-made", "lbfgs-class", "trace-elbo", "tensor-args", "class"],
)
def test_what_cannot_be_fitted_is_one_problem(given, key):
    assert problems_of(**{"model": conjugate, "args": (X,), **given}) == [key]


def test_a_fitted_guide_is_no_guide_to_fit():
    result = sweepvi.fit(conjugate, (X,), **FEW)
    assert problems_of(conjugate, (X,), guide=result.guide) == ["guide"]


def test_an_array_of_words_is_passed_through(tmp_path):
    seen = []

    def model(x, names):
        seen.append((type(names), names.tolist()))
        conjugate(x)

    words = {"names": np.array(["a", "b"])}
    sweepvi.fit(model, (X,), words, folder=tmp_path, **FEW)
    sweepvi.fit(model, (X,), words, folder=tmp_path, resume=True, **QUICK)
    assert all(entry == (np.ndarray, ["a", "b"]) for entry in seen)


# The command line.

MINE = """
from pathlib import Path

import pyro, pyro.distributions as dist, torch
from pyro.nn import PyroModule

def record(name, value):
    with Path(__file__).with_name(name).open("a") as file:
        print(repr(value), file=file)

data = {"x": torch.randn(20)}

def model(x):
    record("data", x.tolist())
    pyro.sample("x", dist.Normal(pyro.sample("mean", dist.Normal(0.0, 1.0)), 1.0).expand([20]).to_event(1), obs=x)

class Net(PyroModule):
    def __init__(self):
        super().__init__()
        self.lin = PyroModule[torch.nn.Linear](1, 1)
        record("weight", self.lin.weight.item())

    def forward(self):
        pyro.sample("z", dist.Normal(self.lin(torch.ones(1)), 1.0).to_event(1))
"""


def recorded(folder, name, words, seed):
    """The different values that the program records as ``name`` when it is fitted with a seed."""
    torch.randn(3)
    settings = [f"engine.seed={seed}", "engine.steps=2", "engine.score_draws=0", "-q", f"hydra.run.dir={name}{seed}"]
    assert main([*words, *settings]) == 0
    values = set((folder / name).read_text().splitlines())
    (folder / name).unlink()
    return values


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_the_seed_of_the_fit_does_not_choose_the_data(mine):
    words = ["model=custom", "model.path=mine.py:model", "model.data=mine.py:data"]
    first, second = (recorded(mine, "data", words, seed) for seed in (0, 1))
    assert len(first) == 1
    assert first == second


def test_the_seed_of_the_fit_chooses_the_weights_of_a_class(mine):
    words = ["model=custom", "model.path=mine.py:Net"]
    first, second = (recorded(mine, "weight", words, seed) for seed in (0, 1))
    assert len(first) == len(second) == 1
    assert first != second


def test_a_multirun_tells_of_the_others_when_one_diverges(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["-m", "model=eight_schools", "optimizer=sgd", "optimizer.lr=1e30,0.001,0.002", "hydra.sweep.dir=all"]
    settings = ["engine.on_nonfinite=raise", "engine.steps=5", "engine.score_draws=5"]
    assert main([*words, *settings]) == 0
    out, _ = capfd.readouterr()
    assert "3 trials: 2 complete, 1 pruned (1 diverged)" in out
    with Path("all/trials.csv").open(newline="") as file:
        rows = {float(row["optimizer.lr"]): row for row in csv.DictReader(file)}
    assert [rows[rate]["state"] for rate in (0.001, 0.002)] == ["COMPLETE"] * 2
    assert rows[1e30]["reason"] == "diverged"
    assert rows[1e30]["message"].startswith("step 2: ")
