"""Models and guides without side effects: what a fit changes outside itself, and how it is put back.

Pyro keeps parameters in a global store, and trains the networks it is handed in place. Here every fit has a store of
its own, works on copies of the tensors in every network that it can reach, and leaves both as it found them; so that
a fit depends on nothing that ran before it.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from sweepvi.guides.guide import Program
from sweepvi.private import tensor_tables


@dataclass(frozen=True)
class FittedState:
    """All that a model and its guide need to run as fitted; aliases no live tensor."""

    params: dict[str, Tensor] = field(default_factory=dict)
    """Unconstrained parameters by name."""
    constraints: dict[str, Any] = field(default_factory=dict)
    """Each parameter's constraint, a ``torch.distributions.constraints.Constraint``."""
    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Tensors of every reachable network: path of the network → parameters and buffers by name."""

    def constrained(self) -> dict[str, Tensor]:
        """Parameters by name, as the model and guide see them."""
        to = torch.distributions.transform_to
        return {name: to(self.constraints[name])(value).detach() for name, value in self.params.items()}


def fitted_state(programs: Mapping[str, Program]) -> FittedState:
    """A copy of the current parameter store and of the networks that ``programs`` reach."""
    state = pyro.get_param_store().get_state()
    modules = reachable_modules(programs)
    return FittedState(
        {name: value.detach().clone() for name, value in state["params"].items()},
        dict(state["constraints"]),
        {path: module_tensors(module) for path, module in modules.items()},
    )


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a network's parameters and buffers, by name."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


class FittedProgram:
    """A model or guide that runs as fitted, wherever and whenever it is called.

    Call it, or hand it to ``pyro.infer.Predictive``. Other attributes are those of the program itself.
    """

    def __init__(self, name: str, programs: Mapping[str, Program], state: FittedState, dtype: torch.dtype) -> None:
        self.program = programs[name]
        self._programs = programs
        self._state = state
        self._dtype = dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program with the fitted parameters."""
        with isolated(self._programs, self._state), default_dtype(self._dtype):
            return self.program(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the program; a method runs with the fitted parameters."""
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.program, name)
        if not isinstance(found, types.MethodType):
            return found

        @functools.wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            with isolated(self._programs, self._state), default_dtype(self._dtype):
                return found(*args, **kwargs)

        return method


@contextmanager
def isolated(programs: Mapping[str, Program], state: FittedState | None = None) -> Iterator[None]:
    """Inside, a parameter store and networks of its own, empty and as found or as in ``state``; outside, no change."""
    store = pyro.get_param_store()
    before = store.get_state()
    with ExitStack() as stack:
        stack.callback(_restore_store, before)
        store.clear()
        stack.enter_context(pyro.settings.context(module_local_params=False))
        for path, module in reachable_modules(programs).items():
            stack.enter_context(_module_restored(module))
            if state is not None:
                _load_module(module, state.modules.get(path, {}))
        if state is not None:
            params = {name: value.clone().requires_grad_() for name, value in state.params.items()}
            store.set_state({"params": params, "constraints": state.constraints})
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Inside, torch's default floating-point type is ``dtype``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _restore_store(state: Any) -> None:
    store = pyro.get_param_store()
    store.clear()
    store.set_state(state)


@contextmanager
def _module_restored(module: nn.Module) -> Iterator[None]:
    """Give every tensor of a network a copy of its data for now, and its own data back at the end."""
    tables = tensor_tables(module)
    entries = [dict(table) for table in tables]
    tensors = {id(t): t for table in entries for t in table.values() if t is not None}
    kept = [(tensor, tensor.data, tensor.grad) for tensor in tensors.values()]
    for tensor, data, _ in kept:
        tensor.data = data.clone()
        tensor.grad = None
    try:
        yield
    finally:
        for table, entry in zip(tables, entries, strict=True):
            table.clear()
            table.update(entry)
        for tensor, data, grad in kept:
            tensor.data = data
            tensor.grad = grad


def _load_module(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in values:
            tensor.data = values[name].clone()


def reachable_modules(programs: Mapping[str, Program]) -> dict[str, nn.Module]:
    """Every network that the programs can run, by where it was found (``"model.decoder"``).

    Looks through bound methods, partial applications, plain objects and containers, and through the closures, default
    arguments and globals of functions: what ``pyro.module`` registers is often no attribute of anything.
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for name, program in programs.items():
        _walk(name, program, found, seen)
    return found


_LIBRARIES = ("torch", "pyro", "numpy", "sweepvi")


def _walk(path: str, value: Any, found: dict[str, nn.Module], seen: set[int]) -> None:
    if id(value) in seen or isinstance(value, Tensor | type | types.ModuleType | str | bytes | int | float):
        return
    seen.add(id(value))
    if isinstance(value, FittedProgram):
        value = value.program
    if isinstance(value, nn.Module):
        found[path] = value
        seen.update(id(part) for part in value.modules())
    for name, part in _parts(value):
        _walk(f"{path}.{name}", part, found, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield "self", value.__self__
        yield from _parts(value.__func__)
    elif isinstance(value, functools.partial):
        yield from enumerated("args", (value.func, *value.args))
        yield from value.keywords.items()
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, Mapping):
        yield from ((str(key), entry) for key, entry in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from enumerated("item", value)
    elif not _is_of_library(type(value)) or isinstance(value, nn.Module):
        yield from vars(value).items() if hasattr(value, "__dict__") else ()


def enumerated(name: str, values: Any) -> Iterator[tuple[str, Any]]:
    """Entries with their places as names: ``item0``, ``item1``, …"""
    for index, entry in enumerate(values):
        yield f"{name}{index}", entry


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield "wrapped", wrapped
    if _is_of_library(function):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a closure variable that is not assigned yet
            continue
    yield from enumerated("default", (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()))
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def _is_of_library(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _LIBRARIES
