"""``INSTALLED_APPS``: "channels" and "daphne" become one "headrace".

Rules of this file:

- Which apps a list holds is told by its name: ``INSTALLED_APPS`` and whatever else ends with
  ``APPS``, as a variable, an attribute, an argument or a key.
- An app that stands in the settings twice stops Django, so one entry stays: Daphne's, whose place
  matters (before ``django.contrib.staticfiles``), or else that of Channels.
- An entry that can't be taken out of its list (an argument of ``insert()``) is remarked upon.
"""

import re
from dataclasses import dataclass

import libcst as cst

from .edits import Edit
from .module import Module, dotted, walk

__all__ = ["App", "rewrite_installed_apps"]

_CHANNELS = frozenset({"channels", "channels.apps.ChannelsConfig"})
_DAPHNE = frozenset({"daphne", "daphne.apps.DaphneConfig"})
_HEADRACE = frozenset({"headrace", "headrace.apps.HeadraceConfig"})
_STATIC = "django.contrib.staticfiles"

#: With django-tenants these two are not added up, but compared.
_SEPARATE = frozenset({"SHARED_APPS", "TENANT_APPS"})

_EXPRESSIONS = (
    cst.List
    | cst.Tuple
    | cst.Set
    | cst.Element
    | cst.StarredElement
    | cst.BinaryOperation
    | cst.BooleanOperation
    | cst.IfExp
    | cst.Call
    | cst.Arg
    | cst.Dict
    | cst.DictElement
    | cst.Comparison
    | cst.ComparisonTarget
    | cst.ListComp
    | cst.GeneratorExp
    | cst.CompFor
    | cst.CompIf
)


@dataclass(frozen=True, slots=True)
class App:
    """A place in the settings where Headrace's app is named now."""

    line: int
    #: The statement adds to apps that are listed elsewhere, maybe in another module.
    adds: bool


class _Entry:
    """One string that names the app."""

    def __init__(self, module: Module, node: cst.SimpleString, statement: cst.CSTNode) -> None:
        self.node = node
        self.value = str(node.evaluated_value)
        self.in_comparison = any(
            isinstance(parent, cst.Comparison) for _, parent in module.ancestors(node)
        )
        element = module.parent(node)
        self.sequence = module.parent(element) if isinstance(element, cst.Element) else None
        names = {dotted(target) for target in _targets(statement)}
        self.is_setting = bool(names) and not names & _SEPARATE
        self.adds = isinstance(statement, cst.AugAssign | cst.Call) or (
            isinstance(statement, cst.Assign | cst.AnnAssign)
            and statement.value is not None
            and _mentions_apps(statement.value)
        )
        #: Django runs the statement in any case, while it reads the settings.
        self.settled = (
            self.is_setting
            and self.sequence is not None
            and isinstance(module.parent(module.parent(statement) or node), cst.Module)
        )

    @property
    def is_addition(self) -> bool:
        """The app comes to those that are listed, and Headrace may be among them."""
        return self.value not in _HEADRACE and (
            self.adds or (self.is_setting and self.sequence is None)
        )

    @property
    def rank(self) -> int:
        """The lower, the rather it stays."""
        return 0 if self.value in _HEADRACE else 1 if self.value in _DAPHNE else 2


def rewrite_installed_apps(module: Module) -> tuple[set[cst.CSTNode], list[App]]:
    """Find edits and remarks for the apps.

    Return the strings that have been dealt with, and where the settings name Headrace now.
    """
    entries = []
    for node in module.all(cst.SimpleString):
        if node.raw_value in _CHANNELS | _DAPHNE | _HEADRACE:
            statement = _names_apps(module, node)
            if statement is not None:
                entries.append(_Entry(module, node, statement))
    listed = [
        entry
        for entry in entries
        if entry.settled or (entry.is_setting and not entry.adds and entry.sequence is not None)
    ]
    groups: dict[object, list[_Entry]] = {}
    for entry in entries:
        if entry.in_comparison:
            _compared(module, entry)
        elif entry.settled:
            groups.setdefault("settings", []).append(entry)
        elif listed and entry not in listed and entry.is_addition:
            module.remark(
                entry.node,
                f"{entry.value!r} would be 'headrace', which line {module.line(listed[0].node)} "
                "lists already, and the same app twice stops Django: take it out here",
            )
        else:
            groups.setdefault(entry.sequence or entry.node, []).append(entry)
    apps = []
    for group in groups.values():
        keeper = _unite(module, group)
        if keeper.is_setting or keeper.adds:
            apps.append(App(module.line(keeper.node), keeper.adds))
    return {entry.node for entry in entries}, apps


def _names_apps(module: Module, node: cst.CSTNode) -> cst.CSTNode | None:
    """Return what names the list that the string is in, or None if it is in no list of apps."""
    for child, parent in module.ancestors(node):
        match parent:
            case cst.Assign():
                return parent if any(_is_apps(target.target) for target in parent.targets) else None
            case cst.AnnAssign() | cst.AugAssign():
                return parent if _is_apps(parent.target) else None
            case cst.Arg(keyword=cst.Name() as name) if _is_apps(name):
                return parent
            case cst.DictElement(key=cst.SimpleString() as key) if key is not child and _is_name(
                str(key.evaluated_value)
            ):
                return parent
            case cst.Call(func=cst.Attribute() as method) if _is_apps(method.value):
                return parent
            case cst.Comparison() if any(
                _is_apps(side)
                for side in (parent.left, *(t.comparator for t in parent.comparisons))
            ):
                return parent
        if not isinstance(parent, _EXPRESSIONS):
            return None
    return None


def _is_apps(node: cst.CSTNode) -> bool:
    return _is_name(dotted(node).rpartition(".")[2])


def _is_name(name: str) -> bool:
    return name.upper().endswith("APPS")


def _targets(statement: cst.CSTNode) -> list[cst.CSTNode]:
    if isinstance(statement, cst.Assign):
        return [target.target for target in statement.targets]
    if isinstance(statement, cst.AnnAssign | cst.AugAssign):
        return [statement.target]
    return []


def _mentions_apps(value: cst.CSTNode) -> bool:
    return any(isinstance(node, cst.Name) and _is_name(node.value) for node in walk(value))


def _compared(module: Module, entry: _Entry) -> None:
    if entry.value in _CHANNELS:
        _write(module, entry)
    elif entry.value in _DAPHNE:
        module.remark(
            entry.node,
            "a comparison with 'daphne': Headrace's one app stands for Channels and Daphne",
        )


def _unite(module: Module, group: list[_Entry]) -> _Entry:
    """Let one entry of the group name Headrace, and take the others out; return the one."""
    keeper = min(group, key=lambda entry: entry.rank)
    if keeper.value not in _HEADRACE:
        _write(module, keeper)
        _remark_order(module, keeper)
    removed: dict[cst.CSTNode, list[cst.CSTNode]] = {}
    for entry in group:
        if entry is not keeper and entry.value not in _HEADRACE:
            assert entry.sequence is not None
            removed.setdefault(entry.sequence, []).append(entry.node)
    for sequence, nodes in removed.items():
        _remove(module, sequence, nodes)
    return keeper


def _write(module: Module, entry: _Entry) -> None:
    start, end = module.span(entry.node)
    left = len(entry.node.prefix) + len(entry.node.quote)
    new = "headrace.apps.HeadraceConfig" if entry.value.startswith("channels.") else "headrace"
    module.edits.append(Edit(start + left, end - len(entry.node.quote), new))


def _remark_order(module: Module, keeper: _Entry) -> None:
    for element in getattr(keeper.sequence, "elements", ()):
        if element.value is keeper.node:
            return
        if isinstance(element.value, cst.SimpleString) and element.value.raw_value == _STATIC:
            module.remark(
                keeper.node,
                f"'headrace' stands behind {_STATIC!r}: put it before, so that runserver is "
                "Headrace's and serves WebSockets",
            )


def _remove(module: Module, sequence: cst.CSTNode, nodes: list[cst.CSTNode]) -> None:
    """Take these elements out of their list or tuple, each with its comma and its line."""
    elements = [element.value for element in getattr(sequence, "elements", ())]
    left = [element for element in elements if element not in nodes]
    # A tuple of one element needs a comma.
    lonely = isinstance(sequence, cst.Tuple) and len(left) == 1
    data = module.source.encode()
    for node in nodes:
        start, end = module.span(node)
        index = elements.index(node)
        before = module.span(elements[index - 1])[1] if index else start
        comma = _has_comma(data, end)
        line = _own_line(data, start, end)
        if line is not None:
            module.edits.append(Edit(*line, ""))
        elif (
            node is elements[-1]
            and elements[index - 1] not in nodes
            and data[before:start].strip(b" \t\r\n") == b","
        ):
            # With what separates it from the one before.
            module.edits.append(Edit(before, end, "," if lonely and not comma else ""))
        else:
            stop = _skip(data, _skip(data, end, b" \t") + 1, b" \t") if comma else end
            module.edits.append(Edit(start, stop, ""))
    if lonely and left[0] is elements[-1]:
        end = module.span(left[0])[1]
        if not _has_comma(data, end):
            module.edits.append(Edit(end, end, ","))


def _own_line(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return where the line begins and ends, if nothing else but a comment is on it."""
    stop = _skip(data, end, b" \t")
    if data[stop : stop + 1] == b",":
        stop = _skip(data, stop + 1, b" \t")
    if data[stop : stop + 1] == b"#":
        while data[stop : stop + 1] not in (b"\r", b"\n"):
            stop += 1
    newline = re.match(rb"\r\n|\r|\n", data[stop : stop + 2])
    first = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start)) + 1
    if newline is None or data[first:start].strip():
        return None
    return first, stop + newline.end()


def _has_comma(data: bytes, position: int) -> bool:
    return data[_skip(data, position, b" \t\r\n") :].startswith(b",")


def _skip(data: bytes, position: int, what: bytes) -> int:
    while position < len(data) and data[position] in what:
        position += 1
    return position
