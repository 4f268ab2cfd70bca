"""A loop in compiled code without its allocations.

Inductor writes ``scan`` as a C++ loop that makes a tensor anew, in every iteration, for everything that the loop's body
is given and for everything it computes. For small fits that is most of the time a step takes: the handles cost
more than the numbers. Here the text of that loop is changed so that

* what the body is given is read where it lies,
* what it computes has memory that is allocated once, and
* what it hands to the next iteration changes places with what that iteration replaces.

What is calculated, and in which order, stays as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_CHECKED = r"AOTI_TORCH_ERROR_CODE_CHECK"
_GIVEN = re.compile(
    rf"^ *AtenTensorHandle (\w+)_handle;\n *{_CHECKED}\(aoti_torch_assign_tensors_out\((\w+), &\1_handle\)\);\n"
    r" *RAIIAtenTensorHandle \1\(\1_handle\);\n",
    re.MULTILINE,
)
_MADE = re.compile(
    rf"^( *)AtenTensorHandle (\w+)_handle;\n *{_CHECKED}\((aoti_torch_empty_strided\(.*), &\2_handle\)\);\n"
    r" *RAIIAtenTensorHandle \2\(\2_handle\);\n",
    re.MULTILINE,
)
_REUSED = re.compile(r"^( *)auto (\w+) = std::move\((\w+)\);  // reuse\n", re.MULTILINE)
_VIEW = re.compile(
    r"^( *)auto (\w+) = wrap_with_raii_handle_if_needed\(reinterpret_tensor_wrapper\((\w+), (.*)\)\);"
    r"(?:  // alias| \3\.reset\(\);  // reuse)?\n",
    re.MULTILINE,
)
_CARRIED = re.compile(r"^( *)(\w+)\.reset\(\);\n *\2 = std::move\((\w+)\);\n", re.MULTILINE)
_FREED = re.compile(r"^ *(\w+)\.reset\(\);\n", re.MULTILINE)
_ITEM = re.compile(rf"{_CHECKED}\(aoti_torch_item_(bool|int64)\((\w+), &(\w+)\)\);")
_LOOP = re.compile(r"^( *)while \(1\) \{\n(.*?)^\1\}\n", re.MULTILINE | re.DOTALL)
_ITEM_TYPES = {"bool": "bool", "int64": "int64_t"}


class UnknownLoopError(ValueError):
    """The text has no loop, or one that is written otherwise than this torch's."""


def without_allocations(source: str) -> str:
    """The C++ of a program for the processor whose loops allocate in their first iterations only.

    Raises ``UnknownLoopError``; the text is then best left as it is.
    """
    loops = list(_LOOP.finditer(source))
    if not loops:
        raise UnknownLoopError("there is no loop")
    for loop in reversed(loops):
        source = source[: loop.start()] + _Loop(loop[1], loop[2]).text() + source[loop.end() :]
    return source


@dataclass
class _Loop:
    indent: str
    body: str
    given: dict[str, str] = field(default_factory=dict)
    """Name in the body → what it is outside."""
    root: dict[str, str] = field(default_factory=dict)
    """Name in the body → the memory behind it, for memory that is kept."""
    kept: list[str] = field(default_factory=list)
    """Names of handles that outlive an iteration."""
    changing: set[str] = field(default_factory=set)
    """Memory that changes places with what the next iteration replaces."""
    viewed: set[str] = field(default_factory=set)
    """Memory that is handed to the next iteration as a view of it: it is not kept."""

    def text(self) -> str:
        """The loop, with declarations before it."""
        if "while (" in self.body:
            raise UnknownLoopError("a loop within a loop")
        body = _GIVEN.sub(self._give, self.body)
        carried = {found[3]: found[2] for found in _CARRIED.finditer(body)}
        self._demand_known(body, carried)
        self._look_at(body, carried)
        body = self._with_memory_kept(body)
        body = _FREED.sub(lambda found: "" if found[1] in self.given or found[1] in self.root else found[0], body)
        self._demand_kept(_CARRIED.sub("", body))
        body = _CARRIED.sub(self._carry, body)
        body = _ITEM.sub(_item, body)
        lines = [
            "{",
            *(f"RAIIAtenTensorHandle {name};" for name in self.kept),
            "bool first_iteration = true;",
            f"while (1) {{\n{body}{self.indent}    first_iteration = false;\n{self.indent}}}",
            "}",
        ]
        return "".join(f"{self.indent}{line}\n" for line in lines)

    def _demand_known(self, body: str, carried: dict[str, str]) -> None:
        moved = re.findall(r"std::move\((\w+)\)", body)
        known = {found[3] for found in _CARRIED.finditer(body)} | {found[3] for found in _REUSED.finditer(body)}
        if not set(moved) <= known or len(set(moved)) != len(moved) or ".release()" in body:
            raise UnknownLoopError("a tensor is handed on in an unknown way")
        for name, outside in carried.items():
            if name in self.given and self.given[name] != outside:
                raise UnknownLoopError("a carried tensor takes another's place")

    def _demand_kept(self, body: str) -> None:
        """What is read where it lies, and memory that is kept, must not be freed or handed on in any other way."""
        gone = re.findall(r"(\w+)\.(?:reset|release)\(|std::move\((\w+)\)", body)
        if any(name in self.root or name in self.given for pair in gone for name in pair):
            raise UnknownLoopError("a tensor is freed in an unknown way")

    def _look_at(self, body: str, carried: dict[str, str]) -> None:
        """Find what becomes of memory that is handed to the next iteration."""
        root: dict[str, str] = {}
        views: set[str] = set()
        for found in _memory_lines(body):
            name = found[2]
            if found.re is _MADE:
                root[name] = name
            elif found[3] in root:
                root[name] = root[found[3]]
                views |= {name} if found.re is _VIEW or found[3] in views else set()
        self.viewed = {root[name] for name in carried if name in views}
        self.changing = {root[name] for name in carried if name in root} - self.viewed

    def _with_memory_kept(self, body: str) -> str:
        """In the order of the text, as a view may be of a view, and memory reused again and again."""
        change = {_MADE: self._keep, _REUSED: self._reuse, _VIEW: self._view}
        parts, end = [], 0
        for found in _memory_lines(body):
            parts += [body[end : found.start()], change[found.re](found)]
            end = found.end()
        return "".join([*parts, body[end:]])

    def _give(self, found: re.Match[str]) -> str:
        self.given[found[1]] = found[2]
        return f"auto& {found[1]} = {found[2]};\n"

    def _keep(self, found: re.Match[str]) -> str:
        indent, name, made = found[1], found[2], found[3]
        if name in self.viewed or re.search(r"\bu\d+\b|\bs\d+\b", made):
            return found[0]
        self.root[name] = name
        handle = self._kept(name)
        return (
            f"{indent}if (!{handle}.get()) {{\n"
            f"{indent}    AtenTensorHandle made;\n"
            f"{indent}    AOTI_TORCH_ERROR_CODE_CHECK({made}, &made));\n"
            f"{indent}    {handle} = RAIIAtenTensorHandle(made);\n"
            f"{indent}}}\n"
            f"{indent}auto& {name} = {handle};\n"
        )

    def _kept(self, name: str) -> str:
        self.kept.append(f"{name}_kept")
        return self.kept[-1]

    def _reuse(self, found: re.Match[str]) -> str:
        indent, name, source = found[1], found[2], found[3]
        if source not in self.root:
            return found[0]
        self.root[name] = self.root[source]
        return f"{indent}auto& {name} = {source};\n"

    def _view(self, found: re.Match[str]) -> str:
        indent, name, source, places = found[1], found[2], found[3], found[4]
        if self.root.get(source, "") in self.changing | {""} or re.search(r"\bu\d+\b", places):
            return found[0]
        self.root[name] = self.root[source]
        handle = self._kept(name)
        view = f"RAIIAtenTensorHandle(reinterpret_tensor_wrapper({source}, {places}))"
        return f"{indent}if (!{handle}.get()) {handle} = {view};\n{indent}auto& {name} = {handle};\n"

    def _carry(self, found: re.Match[str]) -> str:
        indent, outside, name = found[1], found[2], found[3]
        if name in self.given:
            return ""
        if name not in self.root:
            return found[0]
        # The first iteration's are the caller's own: the next must not write into them.
        return f"{indent}if (first_iteration) {outside} = std::move({name}); else std::swap({outside}, {name});\n"


def _memory_lines(body: str) -> list[re.Match[str]]:
    """Where memory is made, reused or viewed, in the order of the text."""
    found = [match for pattern in (_MADE, _REUSED, _VIEW) for match in pattern.finditer(body)]
    return sorted(found, key=lambda match: match.start())


def _item(found: re.Match[str]) -> str:
    kind = _ITEM_TYPES[found[1]]
    return f"{found[3]} = *static_cast<const {kind}*>({found[2]}.data_ptr());"
