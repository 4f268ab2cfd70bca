"""Every private part of torch and Pyro that sweepvi touches, each with its reason; a test watches over each.

A new release that changes one of these breaks ``tests/test_private.py``, which names it.
"""

from __future__ import annotations

import copy
import functools
import linecache
import math
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions.hmm
import pyro.ops.special
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.infer.util import Dice
from pyro.ops import packed
from pyro.ops.einsum.adjoint import require_backward
from pyro.ops.rings import MarginalRing
from pyro.params.param_store import _MODULE_NAMESPACE_DIVIDER
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor
from torch._C._functorch import (
    _grad_decrement_nesting,
    _grad_increment_nesting,
    _unwrap_for_grad,
    _wrap_for_grad,
    get_inplace_requires_grad_allowed,
    get_unwrapped,
    is_batchedtensor,
    set_inplace_requires_grad_allowed,
)
from torch.fx import graph_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from sweepvi.log_products import MOST_STATES, log_product_of_all

# One call for many small tensors: the public way is a Python call each. torch.optim is built on these.
foreach_copy_: Any = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
foreach_add_: Any = torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]
foreach_zero_: Any = torch._foreach_zero_  # pyright: ignore[reportPrivateImportUsage]

# Without the guard around it that imports torch's compiler, a second, only to keep that off optimizers.
add_param_group: Any = torch.optim.Optimizer.add_param_group.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]

# What torch's own Gamma and Dirichlet draw with: where other noise takes its place.
standard_gamma: Any = torch._standard_gamma  # pyright: ignore[reportPrivateImportUsage]
standard_gamma_grad: Any = torch._standard_gamma_grad  # pyright: ignore[reportPrivateImportUsage]
sample_dirichlet: Any = torch._sample_dirichlet  # pyright: ignore[reportPrivateImportUsage]

# Public, but not exported where it is documented.
LinAlgError: type[Exception] = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every element of every tensor is finite; one synchronisation, whatever their number."""
    norms = torch._foreach_norm(list(tensors), math.inf)  # pyright: ignore[reportPrivateImportUsage]
    return bool(torch.isfinite(torch.stack(list(norms))).all())


def unconstrained_params() -> dict[str, Tensor]:
    """The parameter store's own unconstrained tensors by name, live.

    The public ``items()`` computes every constrained value, and ``get_state()`` copies the table.
    """
    return pyro.get_param_store()._params


def constraint_of(name: str) -> Any:
    """The constraint of a parameter; the public way copies the table."""
    return pyro.get_param_store()._constraints[name]


def constraints_table() -> dict[str, Any]:
    """The parameter store's own constraints by name, live."""
    return pyro.get_param_store()._constraints


def is_module_parameter(name: str) -> bool:
    """Whether a parameter's name is of one registered by ``pyro.module``."""
    return _MODULE_NAMESPACE_DIVIDER in name


def tensor_tables(module: torch.nn.Module) -> list[dict[str, Any]]:
    """The tables of parameters and buffers of a network and its parts.

    Putting a network back as it was needs the tables themselves: ``PyroModule`` replaces entries in them.
    """
    return [table for part in module.modules() for table in (part._parameters, part._buffers)]


def fresh_autoguide(guide: AutoGuide) -> AutoGuide:
    """A copy of an autoguide, and of the guides in it, that shares their models.

    Pyro's autoguides drop their model when they are copied: both the copy and the original.
    """
    parts = [part for part in guide.modules() if isinstance(part, AutoGuide)]
    models = [part._model for part in parts]
    copied = copy.deepcopy(guide, {id(model): model for model in models})
    copies = [part for part in copied.modules() if isinstance(part, AutoGuide)]
    for part, twin, model in zip(parts, copies, models, strict=True):
        part._model = twin._model = model
        if part is not guide:
            part._update_master(weakref.ref(guide))
    return copied


def is_subsample(site: Any) -> bool:
    """Whether a trace's site is a plate's choice of a minibatch; Pyro has no public sign of it."""
    return type(site["fn"]).__name__ == "_Subsample"


def is_minibatch(site: Any) -> bool:
    """Whether a trace's site is a plate's choice of fewer entries than there are."""
    return is_subsample(site) and len(site["value"]) < site["fn"].size


def as_parameter(tensor: Tensor) -> Tensor:
    """The tensor, which is an ``nn.Parameter`` from now on by ``isinstance``; making one would cut it off its graph."""
    tensor._is_param = True  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


def carries_gradient(tensor: Tensor) -> bool:
    """Whether a tensor is differentiated; one that a ``vmap`` maps over within a gradient says that it is not."""
    while is_batchedtensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor.requires_grad


class _Dirichlet:
    """Dirichlet draws as gamma draws divided by their sum, differentiable through them."""

    @staticmethod
    def apply(concentration: Tensor) -> Tensor:
        gammas = torch._standard_gamma(concentration)  # pyright: ignore[reportPrivateImportUsage]
        return gammas / gammas.sum(-1, keepdim=True)


class _SafeLog(torch.autograd.Function):
    """A logarithm whose derivative is at most the inverse of the type's epsilon: at 0, it is not infinite."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / x.clamp_min(torch.finfo(x.dtype).eps)


# Pyro's product over time of the matrices of a hidden Markov model; there is no public one.
_log_product_of_all: Any = pyro.distributions.hmm._sequential_logmatmulexp


def _log_product(logits: Tensor) -> Tensor:
    return log_product_of_all(logits) if logits.shape[-1] <= MOST_STATES else _log_product_of_all(logits)


def _expectation(dice: Any, costs: Mapping[frozenset[str], list[Any]]) -> Any:
    """``Dice.compute_expectation``: the sum over costs, each weighted with the probability of what it is the cost of.

    Args:
        dice: the weights of a guide's draws, and what they depend on.
        costs: by the plates that they are in: packed tensors.

    """
    total: Any = 0.0
    ring = MarginalRing()
    for plates, terms in costs.items():
        weights = dice._get_log_factors(plates)
        number = math.exp(sum(weight for weight in weights if not isinstance(weight, Tensor)))
        tensors = [weight for weight in weights if isinstance(weight, Tensor)]
        probabilities = _probabilities(ring, tensors, terms, plates)
        for term in terms:
            cost, probability = packed.broadcast_all(term, probabilities[_dims(term)])
            # What cannot happen costs nothing, were its cost infinite; Pyro selects the rest by its values.
            possible = torch.where(probability > 0, cost, torch.zeros_like(cost))
            total = total + number * (probability * possible).sum()
    return total


def _probabilities(ring: Any, weights: list[Any], terms: list[Any], plates: frozenset[str]) -> dict[Any, Tensor]:
    """The product of log ``weights``, summed over all dimensions but those of each term and plates: by dimensions."""
    weights = list(weights)
    asked: dict[frozenset[str], Any] = {}
    for term in terms:
        if _dims(term) in asked:
            continue
        like = next((weight for weight in weights if _dims(weight) == _dims(term)), None)
        if like is None:
            like: Any = torch.zeros_like(term)
            like._pyro_dims = term._pyro_dims
            weights.append(like)
        asked[_dims(term)] = like
    for each in asked.values():
        require_backward(each)
    summed = frozenset().union(*map(_dims, weights)) - plates
    ring.sumproduct(weights, summed)._pyro_backward()
    found: dict[Any, Any] = {dims: each._pyro_backward_result.exp() for dims, each in asked.items()}
    for dims, probability in found.items():
        probability._pyro_dims = asked[dims]._pyro_dims
    return found


def _dims(tensor: Any) -> frozenset[str]:
    return frozenset(tensor._pyro_dims)


@contextmanager
def transformable() -> Iterator[None]:
    """Inside, parts of torch and Pyro that no function transform can pass through are replaced.

    ``torch.distributions.Dirichlet`` and Pyro's ``safe_log``, of which its sums over discrete variables are made, are
    ``autograd.Function``s of the old kind. Checks of arguments, Pyro's warnings of NaN, and ``TraceEnum_ELBO`` where it
    leaves out values of probability 0, branch on values. Long products of small matrices are replaced for their speed.
    """
    warners = [
        module for name, module in sys.modules.items() if name.startswith("pyro.") and "warn_if_nan" in vars(module)
    ]
    replaced: list[tuple[Any, str, Any]] = [
        (torch.distributions.dirichlet, "_Dirichlet", _Dirichlet),
        (pyro.ops.special, "_SafeLog", _SafeLog),
        (Dice, "compute_expectation", _expectation),
        (pyro.distributions.hmm, "_sequential_logmatmulexp", _log_product),
        *((module, "warn_if_nan", lambda *args, **kwargs: None) for module in warners),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    with pyro.validation_enabled(False):
        try:
            for owner, name, value in replaced:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)


@contextmanager
def whole_plates() -> Iterator[None]:
    """Inside, plates that would draw a minibatch take everything; a minibatch that is given to a plate stays.

    A plate compares the size of its minibatch with the one that it was asked for: no effect handler can change it.
    """
    messenger: Any = SubsampleMessenger
    original = messenger.__dict__["_subsample"]

    def whole(name: str, size: Any = None, subsample_size: Any = None, subsample: Any = None, *more: Any) -> Any:
        return original.__func__(name, size, None if subsample is None else subsample_size, subsample, *more)

    messenger._subsample = staticmethod(whole)
    try:
        yield
    finally:
        messenger._subsample = original


def is_deterministic(site: Any) -> bool:
    """Whether a trace's site is a ``pyro.deterministic`` statement."""
    return bool(site["infer"].get("_deterministic"))


def set_fill_uninitialized_memory(fill: bool) -> bool:
    """Whether deterministic algorithms fill new memory, a cost at every allocation; returns what it was."""
    deterministic: Any = torch.utils.deterministic
    before = deterministic.fill_uninitialized_memory
    deterministic.fill_uninitialized_memory = fill
    return before


def use_deterministic_algorithms(mode: bool, warn_only: bool) -> None:
    """What torch has by that name, without its import of the compiler: a second of a process that compiles nothing."""
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    else:
        torch._C._set_deterministic_algorithms(mode, warn_only=warn_only)


class DispatchMode(TorchDispatchMode):
    """torch's mode, without the guard around every call that keeps the compiler off it, and so imports the compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def gradient_and_rest(function: Callable[..., tuple[Tensor, Any]], x: Tensor, *others: Any) -> tuple[Tensor, Any]:
    """The gradient with respect to ``x`` of the first result of ``function(x, *others)``, and the other result.

    It is that of ``torch.func.grad_and_value``, which turns compiled autograd off, and to do so imports the compiler:
    more than a second of a process that compiles nothing.
    """
    level = _grad_increment_nesting()
    try:
        with torch.enable_grad():
            x, others = tree_map_only(Tensor, lambda tensor: _wrap_for_grad(tensor, level), (x, others))
            with _inplace_requires_grad():
                x.requires_grad_()
            value, rest = function(x, *others)
            gradient = torch.zeros_like(x)
            if value.requires_grad:
                [gradient] = torch.autograd.grad(value, x, create_graph=True, allow_unused=True, materialize_grads=True)
            return tree_map_only(Tensor, lambda tensor: _unwrap_for_grad(tensor, level), (gradient, rest))
    finally:
        _grad_decrement_nesting()


@contextmanager
def _inplace_requires_grad() -> Iterator[None]:
    before = get_inplace_requires_grad_allowed()
    set_inplace_requires_grad_allowed(True)
    try:
        yield
    finally:
        set_inplace_requires_grad_allowed(before)


def validates_distributions() -> bool:
    """Whether torch's distributions check their arguments by default; the public way can only be written."""
    return torch.distributions.Distribution._validate_args


@contextmanager
def sources_forgotten() -> Iterator[None]:
    """Inside, modules are made of graphs; afterwards, their sources are forgotten, which torch keeps for good.

    Also of those that another thread has made meanwhile: tracebacks through them show no lines.
    """
    kept: dict[str, str] = graph_module._loader.eval_cache
    before = set(kept)
    try:
        yield
    finally:
        for name in [name for name in list(kept) if name not in before]:
            kept.pop(name, None)
            linecache.cache.pop(name, None)


def without_numbers(value: Any) -> Any:
    """A tensor's shape, strides and type, as one on the device ``meta``; what is no tensor as it is.

    No ``TorchFunctionMode`` that is active sees it made: torch has no public way to turn all of them off.
    """
    if not isinstance(value, Tensor):
        return value
    with torch._C.DisableTorchFunction():
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


@functools.cache
def is_composite(overload: Any) -> bool:
    """Whether an operator is made of others, which autograd, if it had seen it, would have called in its place."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(overload.name(), "CompositeImplicitAutograd")


def operation_of(overload: Any) -> Any:
    """What an operator of ``torch.ops`` calls: without the Python frame in between, a fifth of a small call."""
    return overload._op


def scan(function: Any, state: list[Tensor], given: list[Tensor], constants: Sequence[Tensor]) -> Sequence[Tensor]:
    """A loop over the first dimension of ``given``, as one operation of a graph that is being traced.

    Args:
        function: of state, one row of each of ``given``, and constants, each tensor an argument; returns the state
            after it, and what is to be stacked.
        state: tensors before the loop.
        given: tensors of shape [T, …].
        constants: tensors that are the same in every step.

    The public ``scan`` traces the function with Dynamo, for which a graph that is traced already is a new program.

    """
    from torch._higher_order_ops.scan import scan_op

    return scan_op(function, state, given, tuple(constants))


def compile_to_package(
    graph: torch.fx.GraphModule,
    example: Sequence[Tensor],
    path: Path,
    options: Mapping[str, Any],
    rewritten: Callable[[str], str],
) -> None:
    """Write machine code of a graph, for tensors like these, to a file.

    Args:
        graph: free of side effects.
        example: its arguments; no two share memory.
        path: ends in ``.pt2``.
        options: of the compiler.
        rewritten: changes the C++ that calls the kernels, where it is for the processor alone. The compiler has no
            public place for it. It stays in effect: this is for a process that does nothing else.

    """
    from torch._inductor import aoti_compile_and_package, codecache

    compiler: Any = codecache.AotCodeCompiler
    original = compiler.__dict__["compile"].__func__

    def compile_changed(cls: Any, lowered: Any, source: str, *arguments: Any, **keywords: Any) -> Any:
        changed = rewritten(source) if keywords.get("device_type") == "cpu" else source
        return original(cls, lowered, changed, *arguments, **keywords)

    compiler.compile = classmethod(compile_changed)
    program = torch.export.export(graph, tuple(example))
    aoti_compile_and_package(program, package_path=str(path), inductor_configs=dict(options))


def load_package(path: Path) -> Any:
    """A program of :func:`compile_to_package`: takes a list of tensors, which it empties, and returns another.

    The public loader imports the compiler, which takes seconds, and checks trees of arguments at every call.
    """
    loader: Any = torch._C._aoti  # pyright: ignore[reportAttributeAccessIssue]
    return loader.AOTIModelPackageLoader(str(path), "model", True, 1, -1).boxed_run
