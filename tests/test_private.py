"""The private parts of torch and Pyro that are relied on still do what they are relied on for."""

from __future__ import annotations

import inspect
import linecache
import subprocess
import sys
from functools import partial
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.nn import PyroModule, PyroParam
from pyro.ops.special import safe_log
from torch.distributions import constraints
from torch.func import grad, grad_and_value, jacrev, vmap
from torch.fx import symbolic_trace
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from sweepvi import private
from sweepvi.estimators.baselines import BASELINE_STATE_PREFIX


def test_foreach_copies_and_adds_in_place():
    left, right = [torch.zeros(2), torch.zeros(())], [torch.ones(2), torch.tensor(3.0)]
    private.foreach_copy_(left, right)
    private.foreach_add_(left, right)
    assert left[0].tolist() == [2.0, 2.0]
    assert left[1].item() == 6.0


def test_all_finite_sees_every_kind_and_is_not_fooled_by_large_numbers():
    assert private.all_finite([torch.ones(2), torch.full((3,), 3e38)])
    for bad in (float("nan"), float("inf"), -float("inf")):
        assert not private.all_finite([torch.ones(2), torch.tensor([0.0, bad])])


def test_linalg_error_is_what_cholesky_raises():
    try:
        torch.linalg.cholesky(-torch.eye(2))
    except private.LinAlgError:
        return
    raise AssertionError("cholesky of a negative matrix raised something else")


def test_the_store_shows_live_unconstrained_tensors_and_constraints():
    constrained = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    live = private.unconstrained_params()["scale"]
    assert live is constrained.unconstrained()
    assert private.constraint_of("scale") is constraints.positive
    pyro.clear_param_store()


def test_tables_hold_what_a_pyro_module_creates():
    module = PyroModule()
    module.scale = PyroParam(torch.tensor(2.0), constraints.positive)
    assert any("scale_unconstrained" in table for table in private.tensor_tables(module))


def test_an_autoguides_copy_and_original_keep_their_model():
    def model():
        pyro.sample("x", dist.Normal(0.0, 1.0))

    guides = AutoGuideList(model)
    guides.append(AutoNormal(model))
    for guide in (AutoNormal(model), guides):
        before = guide.model
        twin = private.fresh_autoguide(guide)
        assert guide.model is before
        assert twin.model is before
        guide()
        twin()
    pyro.clear_param_store()


def test_sites_of_plates_and_deterministics_are_told_apart():
    def model():
        with pyro.plate("data", 10, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("two", torch.tensor(2.0))

    nodes = poutine.trace(model).get_trace().nodes
    sites = {name: site for name, site in nodes.items() if site["type"] == "sample"}
    assert [name for name, site in sites.items() if private.is_subsample(site)] == ["data"]
    assert [name for name, site in sites.items() if private.is_deterministic(site)] == ["two"]


def test_pyro_keeps_decaying_baselines_where_we_look_for_them():
    def model():
        pyro.sample("x", dist.Bernoulli(0.5))

    def guide():
        p = pyro.param("p", torch.tensor(0.4))
        pyro.sample("x", dist.Bernoulli(p), infer={"baseline": {"use_decaying_avg_baseline": True}})

    pyro.infer.TraceGraph_ELBO().loss_and_grads(model, guide)
    assert f"{BASELINE_STATE_PREFIX}x" in pyro.get_param_store()
    pyro.clear_param_store()


@pytest.mark.parametrize(
    ("overload", "arguments", "options"),
    [
        (torch.ops.aten.add.Tensor, (torch.tensor([1.0, 2.0]), torch.tensor(3.0)), {"alpha": 2}),
        (torch.ops.aten.sum.dim_IntList, (torch.ones(2, 3), [1], True), {}),
        (torch.ops.aten._to_copy.default, (torch.ones(2),), {"dtype": torch.float64}),
        (torch.ops.aten.var_mean.correction, (torch.arange(4.0), [0]), {"correction": 1}),
    ],
    ids=str,
)
def test_what_an_operator_calls_is_the_operator(overload, arguments, options):
    """The overload that it is of, and no other; without the overload's own Python frame."""
    operation = private.operation_of(overload)
    torch.testing.assert_close(operation(*arguments, **options), overload(*arguments, **options), rtol=0, atol=0)
    assert operation is not overload
    assert not hasattr(operation, "__code__")


def test_an_operator_calls_one_overload_only():
    with pytest.raises(RuntimeError, match="sum"):
        private.operation_of(torch.ops.aten.sum.default)(torch.ones(2, 3), [1])


def test_sources_of_modules_made_of_graphs_are_forgotten():
    def known():
        return [name for name in linecache.cache if "eval_with_key" in name]

    def plus_one(x):
        return x.cos() + 1

    def made():
        found = symbolic_trace(plus_one)
        assert found(torch.zeros(())) == 2
        return found

    outside, before = made(), known()
    with private.sources_forgotten():
        inside = made()
        assert len(known()) > len(before)
        # What an error inside says is complete.
        assert "cos" in "".join(linecache.getlines(inside.forward.__code__.co_filename))
    assert known() == before
    assert "cos" in "".join(linecache.getlines(outside.forward.__code__.co_filename))
    assert inside(torch.zeros(())) == 2  # and runs


def test_whether_distributions_are_validated_is_what_was_set():
    before = private.validates_distributions()
    try:
        for validates in (True, False):
            torch.distributions.Distribution.set_default_validate_args(validates)
            assert private.validates_distributions() is validates
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_plates_are_whole_inside_and_nothing_stays_changed():
    def rows():
        with pyro.plate("data", 9, subsample_size=2) as found:
            return len(found)

    def fails():
        with private.whole_plates():
            assert rows() == 9
            raise KeyError

    assert rows() == 2
    with pytest.raises(KeyError):
        fails()
    assert rows() == 2


def test_a_tensor_becomes_a_parameter_and_keeps_its_graph():
    leaf = torch.ones(2, requires_grad=True)
    found = private.as_parameter(leaf * 2)
    assert isinstance(found, torch.nn.Parameter)
    assert found.grad_fn is not None
    module = torch.nn.Linear(2, 2)
    module._parameters["bias"] = found
    assert module(torch.zeros(1, 2)).sum().requires_grad


X = torch.tensor([-2.1, -1.7, 0.3, 1.9, 2.4], dtype=torch.float64)
IN_PARALLEL = {"enumerate": "parallel"}


def doubles(name, values, constraint=constraints.real):
    return pyro.param(name, torch.tensor(values, dtype=torch.float64), constraint=constraint)


def mixture():
    loc = doubles("loc", [-1.0, 1.5])
    with pyro.plate("data", len(X)):
        z = pyro.sample("z", dist.Categorical(doubles("weight", [0.3, 0.7], constraints.simplex)), infer=IN_PARALLEL)
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=X)


def chain():
    """A hidden Markov model, one of whose transitions never happens."""
    to_zero = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]], dtype=torch.float64)
    rows, loc, z = doubles("rows", [[0.9, 0.1], [0.4, 0.6]]), doubles("loc", [-1.0, 1.5]), 1
    for t in pyro.markov(range(len(X))):
        z = pyro.sample(f"z{t}", dist.Categorical(logits=(rows + to_zero)[z]), infer=IN_PARALLEL)
        pyro.sample(f"x{t}", dist.Normal(loc[z], 1.0), obs=X[t])


def summed_in_the_guide():
    z = pyro.sample("z", dist.Categorical(torch.tensor([0.4, 0.3, 0.3], dtype=torch.float64)))
    with pyro.plate("data", len(X)):
        pyro.sample("x", dist.Normal(doubles("loc", [-1.0, 1.5, 0.5])[z], 1.0), obs=X)


def summing_guide():
    """One of the three values never happens: its cost is infinite."""
    never = torch.tensor([-torch.inf], dtype=torch.float64)
    pyro.sample("z", dist.Categorical(logits=torch.cat([doubles("logits", [0.2, 0.8]), never])), infer=IN_PARALLEL)


def nothing():
    """A guide without variables."""


def enumerated(model, guide):
    """TraceEnum_ELBO's loss, and gradients by parameter."""
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        loss = TraceEnum_ELBO(max_plate_nesting=1).loss_and_grads(model, guide)
        return loss, {name: param.grad for name, param in private.unconstrained_params().items()}


class TestTransformable:
    """What is replaced for function transforms is still there, still in the way, and equal to what replaces it."""

    def test_parts_are_replaced_inside_and_nowhere_else(self):
        places = {
            torch.distributions.dirichlet: "_Dirichlet",
            pyro.ops.special: "_SafeLog",
            pyro.infer.util.Dice: "compute_expectation",
            pyro.distributions.hmm: "_sequential_logmatmulexp",
            pyro.infer.traceenum_elbo: "warn_if_nan",
        }
        before = {owner: vars(owner)[name] for owner, name in places.items()}

        def fails():
            with private.transformable():
                assert all(vars(owner)[name] is not before[owner] for owner, name in places.items())
                raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert all(vars(owner)[name] is before[owner] for owner, name in places.items())

    def test_safe_log_is_pyros_which_no_transform_passes_through(self):
        x = torch.tensor([0.0, 1e-300, 1e-9, 0.3, 5.0], dtype=torch.float64)
        leaf = x.clone().requires_grad_()
        safe_log(leaf).sum().backward()
        with pytest.raises(RuntimeError, match="setup_context"):
            vmap(grad(safe_log))(x)
        with private.transformable():
            assert torch.equal(vmap(grad(safe_log))(x), leaf.grad)
            assert torch.equal(safe_log(x), x.log())

    @pytest.mark.parametrize(
        ("model", "guide"),
        [(mixture, nothing), (chain, nothing), (summed_in_the_guide, summing_guide)],
        ids=["mixture", "chain", "in-the-guide"],
    )
    def test_sums_over_discrete_variables_are_pyros(self, model, guide):
        loss, expected = enumerated(model, guide)
        with private.transformable():
            ours, found = enumerated(model, guide)
        assert ours == pytest.approx(loss, rel=1e-12)
        assert expected.keys() == found.keys()
        for name, gradient in expected.items():
            assert 0 < gradient.abs().max() < torch.inf
            torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-12)

    def test_pyros_expectation_branches_on_values(self, monkeypatch):
        """Where it no longer does, nothing needs to be replaced."""
        monkeypatch.setattr(pyro.ops.special, "_SafeLog", private._SafeLog)
        monkeypatch.setattr(pyro.infer.traceenum_elbo, "warn_if_nan", lambda *args: None)

        def loss(logits):
            def guide():
                pyro.sample("z", dist.Categorical(logits=logits), infer=IN_PARALLEL)

            return TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(summed_in_the_guide, guide)

        with pyro.get_param_store().scope(), pyro.validation_enabled(False):
            pyro.param("loc", torch.zeros(3, dtype=torch.float64))
            with pytest.raises(RuntimeError, match="data-dependent control flow"):
                vmap(grad(loss))(torch.zeros(2, 3, dtype=torch.float64))
            with private.transformable():
                vmap(grad(loss))(torch.zeros(2, 3, dtype=torch.float64))


def test_a_loop_can_be_one_operation_of_a_traced_graph():
    def summed(state, rows, factor):
        return list(private.scan(lambda total, row, by: [total + row * by, total * 1.0], [state], [rows], [factor]))

    example = torch.zeros(2), torch.ones(3, 2), torch.full((), 2.0)
    graph = make_fx(summed, tracing_mode="fake")(*example)
    assert [node for node in graph.graph.nodes if "scan" in str(node.target)]
    total, before = summed(*example)
    assert total.tolist() == [6.0, 6.0]
    assert before[:, 0].tolist() == [0.0, 2.0, 4.0]


def test_the_compiler_is_handed_its_own_text_and_told_the_device():
    from torch._inductor import codecache

    parameters = list(inspect.signature(codecache.AotCodeCompiler.compile).parameters)
    assert parameters[:3] == ["graph", "wrapper_code", "kernel_code"]
    assert "device_type" in parameters


def test_packages_have_a_loader_without_the_compiler():
    loader = torch._C._aoti.AOTIModelPackageLoader
    assert hasattr(loader, "boxed_run")
    with pytest.raises(RuntimeError):
        private.load_package(Path("/no/such/package.pt2"))


def test_algorithms_are_deterministic_without_the_compiler():
    code = (
        "import sys, torch; from sweepvi.private import use_deterministic_algorithms as use; use(True, True); "
        "assert torch.are_deterministic_algorithms_enabled(); "
        "assert torch.is_deterministic_algorithms_warn_only_enabled(); "
        "use(False, False); assert not torch.are_deterministic_algorithms_enabled(); "
        "assert 'torch._inductor' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_optimizers_are_made_without_the_compiler():
    code = (
        "import sys, torch; from sweepvi.optim import ClippedAdam; "
        "ClippedAdam([{'params': [torch.zeros(2, requires_grad=True)]}], lr=0.1); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tensor_without_numbers_looks_like_it():
    """And no mode of functions sees it made."""

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            pytest.fail(f"{func} was seen")

    for tensor in (
        torch.ones(3).expand(4, 3).mT,
        torch.zeros(2, dtype=torch.float64),
        torch.nn.Parameter(torch.ones(2, 1)),
    ):
        with Seen():
            found = private.without_numbers(tensor)
        assert (found.shape, found.stride(), found.dtype) == (tensor.shape, tensor.stride(), tensor.dtype)
        assert found.device.type == "meta"
    assert private.without_numbers(3) == 3


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: ((x * y).sin().sum(), {"of y": y.exp(), "of both": [x + y, x * 2.0]}),
        lambda x, y: (y.sum(), {"kept": x}),
        lambda x, y: (grad(lambda x: (x**3 * y).sum())(x).sum(), {}),
    ],
)
def test_gradients_are_those_of_torch(function):
    """Of each of several, with what is handed on, and of gradients of gradients."""
    x, y = torch.rand(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64)
    ours, rest = vmap(partial(private.gradient_and_rest, function))(x, y)
    theirs, (_, theirs_rest) = vmap(grad_and_value(function, has_aux=True))(x, y)
    torch.testing.assert_close((ours, rest), (theirs, theirs_rest), rtol=0, atol=0)
    assert not ours.requires_grad

    def twice(gradient):
        return vmap(jacrev(lambda x, y: gradient(x, y)[0]))(x, y)

    mine, those = twice(partial(private.gradient_and_rest, function)), twice(grad_and_value(function, has_aux=True))
    torch.testing.assert_close(mine, those, rtol=0, atol=0)


def test_a_gradient_that_fails_leaves_no_level_behind():
    def fails(x):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        private.gradient_and_rest(fails, torch.ones(2))
    before = torch.ones(2, requires_grad=True)
    before.sum().backward()
    assert torch.equal(grad(lambda x: (x**2).sum())(torch.ones(2)), torch.full((2,), 2.0))


@pytest.mark.parametrize("gradient", [partial(grad, has_aux=True), partial(partial, private.gradient_and_rest)])
def test_a_function_under_a_gradient_cannot_ask_for_gradients_of_its_own(gradient):
    with pytest.raises(RuntimeError, match="requires_grad"):
        gradient(lambda x: ((x * 1.0).requires_grad_().sum(), {}))(torch.ones(2))


def test_a_fit_by_lanes_imports_no_compiler():
    """Importing it takes as long as a short fit."""
    code = (
        "import sys, sweepvi; sweepvi.fit('eight_schools', engine={'name': 'lanes', 'steps': 5, 'restarts': 2}); "
        "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_operator_that_is_made_of_others_is_known():
    aten = torch.ops.aten
    assert private.is_composite(aten.matmul.default)
    assert not any(map(private.is_composite, (aten.mul.Tensor, aten.bmm.default, aten.view.default)))
