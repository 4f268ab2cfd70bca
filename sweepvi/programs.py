"""Models and guides without side effects: what a fit changes outside itself, and how it is put back.

Pyro keeps parameters in a global store, and trains the networks it is handed in place. Here every fit has a store of
its own, works on copies of the tensors in every network that it can reach, and leaves both as it found them; so that
a fit depends on nothing that ran before it.
"""

from __future__ import annotations

import copy
import functools
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from sweepvi.private import tensor_tables
from sweepvi.random_state import ONE_AT_A_TIME


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


def fitted_state(modules: Mapping[str, nn.Module]) -> FittedState:
    """A copy of the current parameter store and of some networks."""
    state = pyro.get_param_store().get_state()
    return FittedState(
        {name: value.detach().clone() for name, value in state["params"].items()},
        dict(state["constraints"]),
        {path: module_tensors(module) for path, module in modules.items()},
    )


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a network's parameters and buffers, by name."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


@dataclass(frozen=True)
class Fitted:
    """Programs with all that they need to run as fitted."""

    programs: Mapping[str, Any]
    """``{"model": …, "guide": …}``, and the data, which may hold networks."""
    state: FittedState
    dtype: torch.dtype
    late: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Inside, parameters that the programs create as they run have their fitted values."""

    @functools.cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The networks that the programs reach."""
        return reachable_modules(self.programs)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Inside, the parameter store and every network have their fitted values; outside, their own."""
        with isolated(self.modules, self.state), default_dtype(self.dtype), self.late():
            yield


class FittedProgram:
    """A model or guide that runs as fitted, wherever and whenever it is called.

    Call it, or hand it to ``pyro.infer.Predictive``. Other attributes are those of the program itself, as fitted: a
    method runs with the fitted parameters, a network or tensor is a copy with the fitted values.
    """

    def __init__(self, name: str, fitted: Fitted) -> None:
        self.program = fitted.programs[name]
        self._fitted = fitted

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program with the fitted parameters."""
        with self._fitted.active():
            return self.program(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """An attribute of the program, as fitted."""
        if name.startswith("__"):
            raise AttributeError(name)
        with self._fitted.active():
            found = getattr(self.program, name)
            if isinstance(found, Tensor):
                return found.detach().clone()
            if isinstance(found, nn.Module):
                return copy.deepcopy(found)
        if not isinstance(found, types.MethodType):
            return found

        @functools.wraps(found)
        def method(*args: Any, **kwargs: Any) -> Any:
            with self._fitted.active():
                return found(*args, **kwargs)

        return method


class Isolation:
    """Tensors that work on a copy of their data for now."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}

    def protect(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors a copy of their data, once each; they get their own back at the end."""
        for tensor in tensors:
            if id(tensor) not in self._kept:
                self._kept[id(tensor)] = (tensor, tensor.data, tensor.grad)
                tensor.data = tensor.data.clone()
                tensor.grad = None

    def undo(self) -> None:
        """Give every tensor its own data back."""
        for tensor, data, grad in self._kept.values():
            tensor.data = data
            tensor.grad = grad


@contextmanager
def isolated(modules: Mapping[str, nn.Module], state: FittedState | None = None) -> Iterator[Isolation]:
    """Inside, a parameter store and networks of its own, empty and as found or as in ``state``; outside, no change.

    Another thread waits until this one is out.
    """
    store = pyro.get_param_store()
    with ExitStack() as stack:
        stack.enter_context(ONE_AT_A_TIME)
        stack.callback(_restore_store, store.get_state())
        store.clear()
        stack.enter_context(pyro.settings.context(module_local_params=False))
        isolation = Isolation()
        stack.callback(isolation.undo)
        for path, module in modules.items():
            stack.callback(_restore_tables, [(table, dict(table)) for table in tensor_tables(module)])
            isolation.protect(_tensors(module).values())
            if state is not None:
                _load_module(module, state.modules.get(path, {}))
        if state is not None:
            params = {name: value.clone().requires_grad_() for name, value in state.params.items()}
            store.set_state({"params": params, "constraints": state.constraints})
        yield isolation


class Suspended:
    """The parameter store and the networks as they are inside :func:`isolated`, to be taken up inside another.

    Every parameter is the same tensor there. Make it inside; ``modules`` are those that :func:`isolated` was given.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self.take()

    def take(self) -> None:
        """Note how everything is, to be called before leaving."""
        self._store = pyro.get_param_store().get_state()
        tables = [table for module in self._modules.values() for table in tensor_tables(module)]
        self._tables = [(table, dict(table)) for table in tables]
        own = [tensor for module in self._modules.values() for tensor in _tensors(module).values()]
        self._data = [(tensor, tensor.data) for tensor in (*own, *self._store["params"].values())]

    def put(self, isolation: Isolation) -> None:
        """Make everything as it was; at the end of ``isolation``, all of it is as outside again."""
        isolation.protect(tensor for tensor, _ in self._data)
        _restore_store(self._store)
        _restore_tables(self._tables)
        for tensor, data in self._data:
            tensor.data = data


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


def _restore_tables(tables: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for table, entries in tables:
        table.clear()
        table.update(entries)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _load_module(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(module).items():
        if name in values:
            tensor.data = values[name].clone()


def reachable_modules(programs: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The networks that the programs can run, by where each was found (``"model.decoder"``).

    Looks through bound methods, partial applications, plain objects with their classes, and containers of up to
    :data:`LONGEST` entries; and through the closures, default arguments and globals of functions, as far as the
    user's own code goes: what ``pyro.module`` registers is often no attribute of anything.
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = list(reversed(list(programs.items())))
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen or isinstance(value, Tensor | str | bytes | int | float):
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            found[_unused(path, found)] = value
            seen.update(id(part) for part in value.modules())
        waiting += [(f"{path}.{name}", part) for name, part in reversed(list(_parts(value)))]
    return found


LONGEST = 1000
"""Containers with more entries are data, and not searched for networks."""

_LIBRARIES = ("torch", "pyro", "numpy", "sweepvi")


def _unused(path: str, found: Mapping[str, Any]) -> str:
    names = itertools.chain([path], (f"{path}~{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in found)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.MethodType):
        yield "self", value.__self__
        yield from _parts(value.__func__)
    elif isinstance(value, functools.partial):
        yield from _numbered("args", (value.func, *value.args))
        yield from value.keywords.items()
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, Mapping):
        yield from ((str(key), entry) for key, entry in value.items() if len(value) <= LONGEST)
    elif isinstance(value, list | tuple):
        yield from _numbered("item", value if len(value) <= LONGEST else ())
    elif isinstance(value, types.ModuleType):
        return
    elif isinstance(value, type):
        yield from () if _is_of_library(value) else vars(value).items()
    elif not _is_of_library(type(value)) or isinstance(value, nn.Module):
        yield from getattr(value, "__dict__", {}).items()
        yield "class", type(value)


def _numbered(name: str, values: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    for index, entry in enumerate(values):
        yield f"{name}{index}", entry


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if _is_of_library(function):
        yield "wrapped", getattr(function, "__wrapped__", None)
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a closure variable that is not assigned yet
            continue
    yield from _numbered("default", (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()))
    names = sorted(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        yield name, value
        if isinstance(value, types.ModuleType) and not _is_of_library(value):
            yield from ((f"{name}.{part}", vars(value)[part]) for part in names if part in vars(value))


def _names(code: types.CodeType) -> set[str]:
    """Names of globals and attributes that a function uses, and functions inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _is_of_library(thing: Any) -> bool:
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", "")
    return str(name).partition(".")[0] in _LIBRARIES
