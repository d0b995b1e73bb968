"""``INSTALLED_APPS``: "channels" and "daphne" become one "headrace".

Rules of this file:

- Which apps a list holds is told by its name: ``INSTALLED_APPS`` and whatever else ends with
  ``APPS``, as a variable, an attribute, an argument or a key.
- An app that stands in the settings twice stops Django, so one entry stays: Daphne's, whose place
  matters (before ``django.contrib.staticfiles``), or else that of Channels.
- An entry that can't be taken out of its list (an argument of ``insert()``) is remarked upon.
"""

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
    listed = [entry for entry in entries if entry.is_setting and not entry.adds]
    listed += [entry for entry in entries if entry.settled]
    groups: dict[object, list[_Entry]] = {}
    for entry in entries:
        if entry.in_comparison:
            _compared(module, entry)
        elif entry.settled:
            groups.setdefault("settings", []).append(entry)
        elif entry.adds and listed and entry.value not in _HEADRACE:
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
    data = module.source.encode()
    for node in nodes:
        start, end = module.span(node)
        index = elements.index(node)
        after = _skip(data, end, b" \t")
        comma = data[after : after + 1] == b","
        stop = _skip(data, after + 1, b" \t") if comma else after
        line_start = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start)) + 1
        rest = _rest_of_line(data, stop)
        if not data[line_start:start].strip() and (not rest.strip() or rest.startswith(b"#")):
            # Alone on its line: the line goes, with what is said about it.
            newline = _newline(data, stop + len(rest))
            module.edits.append(Edit(line_start, stop + len(rest) + newline, ""))
        elif comma:
            module.edits.append(Edit(start, stop, ""))
        else:
            # The last one, without a comma: what separates it from the one before goes, too.
            before = module.span(elements[index - 1])[1] if index else start
            between = data[before:start]
            plain = between.strip(b" \t\r\n") == b"," and elements[index - 1] not in nodes
            module.edits.append(Edit(before if plain else start, end, ""))
    left = [element for element in elements if element not in nodes]
    if isinstance(sequence, cst.Tuple) and len(left) == 1:
        _keep_tuple(module, data, left[0])


def _keep_tuple(module: Module, data: bytes, node: cst.CSTNode) -> None:
    """Leave a comma behind the only element of a tuple."""
    end = module.span(node)[1]
    after = _skip(data, end, b" \t\r\n")
    if data[after : after + 1] != b",":
        module.edits.append(Edit(end, end, ","))
        return
    # The edit that took the separator of the element behind gives it back.
    for number, edit in enumerate(module.edits):
        if edit.start == end and not edit.text:
            module.edits[number] = Edit(edit.start, edit.end, ",")


def _skip(data: bytes, position: int, what: bytes) -> int:
    while position < len(data) and data[position] in what:
        position += 1
    return position


def _rest_of_line(data: bytes, position: int) -> bytes:
    lines = data[position:].splitlines()
    return lines[0] if lines and data[position : position + 1] not in (b"\n", b"\r") else b""


def _newline(data: bytes, position: int) -> int:
    return 2 if data[position : position + 2] == b"\r\n" else min(1, len(data) - position)
