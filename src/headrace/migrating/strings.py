"""Strings that name Channels: dotted paths, installed apps, loggers.

Rules of this file:

- A string is rewritten only where it can't mean anything else: a whole dotted path of Channels
  anywhere, the bare word "channels" only where apps, modules or loggers are named.
- A string that has escapes, is a part of a longer one, or is formatted, is remarked upon.
- Docstrings and comments are prose, and stay.
"""

import re

import libcst as cst

from .edits import Edit
from .installed_apps import App, rewrite_installed_apps
from .module import Module, Unreadable, dotted
from .names import (
    LOGGERS,
    REDIS_LAYER,
    REDIS_LAYERS,
    Missing,
    advice_for_import,
    is_gone_backend,
    is_module,
    successor,
)

__all__ = ["rewrite_strings"]

_DOTTED = re.compile(r"channels(\.[^\W\d]\w*)+", re.ASCII)
_DAPHNE_COMMAND = re.compile(r"\bdaphne\s+(-|\w+(\.\w+)*:\w)")
_MENTIONS = re.compile(r"\bchannels\.\w")
_REQUIREMENT = re.compile(r"(channels|daphne|channels[-_]redis)(\[[^]]*\])?\s*([<>=!~].*)?")

#: Functions whose argument is the name of a module or of an app.
_TAKES_MODULE = {
    "__import__",
    "find_spec",
    "get_app_config",
    "import_module",
    "import_string",
    "importorskip",
    "is_installed",
}
#: Functions whose argument is the name of a logger.
_TAKES_LOGGER = {"assertLogs", "assertNoLogs", "at_level", "getLogger", "get_logger", "set_level"}


def rewrite_strings(module: Module, *, script: bool = False) -> list[App]:
    """Find edits and remarks for all strings; return where the settings name Headrace's app.

    ``redis`` says that Headrace's Redis layer is there to be named; ``script``, that the module
    is one of those that declare requirements.
    """
    entries, apps = rewrite_installed_apps(module)
    loggers: dict[tuple[int, str], cst.CSTNode] = {}
    for node in module.all(cst.SimpleString):
        if node in entries or "b" in node.prefix.lower() or _is_prose(module, node):
            continue
        value = node.evaluated_value
        assert isinstance(value, str)
        if isinstance(module.parent(node), cst.ConcatenatedString):
            continue
        if value in REDIS_LAYERS:
            _put(module, node, value, REDIS_LAYER)
        elif is_gone_backend(value):
            module.remark(
                node, f"{value} is of Channels 1: CHANNEL_LAYERS takes headrace.layers.… classes"
            )
        elif value in LOGGERS and (value.startswith("django.") or _names_logger(module, node)):
            _logger(module, node, loggers)
        elif _DOTTED.fullmatch(value):
            _path(module, node, value)
        elif script and _REQUIREMENT.fullmatch(value):
            module.remark(node, f"{value!r} is a requirement: write headrace in its place")
        elif value in ("channels", "daphne"):
            _name(module, node, value)
        elif _in_annotation(module, node) and _MENTIONS.search(value):
            _annotation(module, node, value)
        elif _DAPHNE_COMMAND.search(value):
            module.remark(node, "the command daphne is headrace serve, with the same options")
    for whole in module.all(cst.ConcatenatedString):
        joined = whole.evaluated_value
        if isinstance(joined, str) and _DOTTED.fullmatch(joined) and is_module(_first_two(joined)):
            module.remark(whole, f"{joined!r} is written in parts: change it by hand")
    for formatted in module.all(cst.FormattedString):
        first = formatted.parts[0] if formatted.parts else None
        if isinstance(first, cst.FormattedStringText) and is_module(_first_two(first.value)):
            module.remark(formatted, "a formatted string names a module of Channels")
    return apps


def _first_two(path: str) -> str:
    return ".".join(path.split(".")[:2]) if "." in path else ""


def _is_prose(module: Module, node: cst.CSTNode) -> bool:
    return isinstance(module.parent(node), cst.Expr)


def _put(module: Module, node: cst.SimpleString, old: str, new: str) -> None:
    """Write another value between the quotes; remark upon one that isn't written plainly."""
    if node.raw_value != old:
        module.remark(node, f"{old!r} is {new!r} now; the string has escapes: change it by hand")
        return
    start, end = module.span(node)
    left = len(node.prefix) + len(node.quote)
    module.edits.append(Edit(start + left, end - len(node.quote), new))


def _path(module: Module, node: cst.SimpleString, value: str) -> None:
    found = successor(value)
    if not isinstance(found, Missing):
        _put(module, node, value, found.path)
    # "channels.index" may be a template, a permission or a route of the project's own.
    elif is_module(_first_two(value)) or found.is_known:
        module.remark(node, str(found))


def _name(module: Module, node: cst.SimpleString, value: str) -> None:
    call = _call_around(module, node)
    if call is None or dotted(call.func).rpartition(".")[2] not in _TAKES_MODULE:
        return
    if value == "channels":
        _put(module, node, value, "headrace")
    else:
        module.remark(node, advice_for_import(value) or "")


def _call_around(module: Module, node: cst.CSTNode) -> cst.Call | None:
    """Return the call whose argument the node is."""
    argument = module.parent(node)
    call = module.parent(argument) if isinstance(argument, cst.Arg) else None
    return call if isinstance(call, cst.Call) else None


def _names_logger(module: Module, node: cst.CSTNode) -> bool:
    """Tell whether this is a key of LOGGING["loggers"], or an argument that names a logger."""
    call = _call_around(module, node)
    argument = module.parent(node)
    if call is not None and isinstance(argument, cst.Arg):
        by_name = argument.keyword is not None and argument.keyword.value == "logger"
        return by_name or dotted(call.func).rpartition(".")[2] in _TAKES_LOGGER
    if not isinstance(argument, cst.DictElement) or argument.key is not node:
        return False
    outer = module.parent(module.parent(argument) or node)
    if isinstance(outer, cst.DictElement) and isinstance(outer.key, cst.SimpleString):
        return outer.key.evaluated_value == "loggers"
    return False


def _logger(
    module: Module, node: cst.SimpleString, seen: dict[tuple[int, str], cst.CSTNode]
) -> None:
    value = node.evaluated_value
    assert isinstance(value, str)
    new = LOGGERS[value]
    element = module.parent(node)
    if isinstance(element, cst.DictElement) and element.key is node:
        # Several of them are one logger now, and a dict keeps the last of equal keys.
        table = module.parent(element)
        assert isinstance(table, cst.Dict)
        if (id(table), new) in seen or new in _keys(table):
            module.remark(
                node, f"the logger {value!r} is {new!r} now, which is configured here already"
            )
            return
        seen[id(table), new] = node
        if value.startswith("daphne") and _handles(element.value) and _parent_handles(table):
            module.remark(
                node,
                f"{new!r} is below 'headrace', which has handlers, too: say "
                '"propagate": False here, or each line comes twice',
            )
    _put(module, node, value, new)


def _parent_handles(loggers: cst.Dict) -> bool:
    """Tell whether the table has handlers for what is, or becomes, the logger "headrace"."""
    return any(
        _handles(value)
        for key, value in _keys(loggers).items()
        if LOGGERS.get(key, key) == "headrace"
    )


def _handles(logger: cst.CSTNode) -> bool:
    """Tell whether a logger is configured such that its lines may be written twice."""
    if not isinstance(logger, cst.Dict):
        return True  # nobody knows
    keys = _keys(logger)
    return "handlers" in keys and dotted(keys.get("propagate")) != "False"


def _keys(table: cst.Dict) -> dict[str, cst.BaseExpression]:
    return {
        str(element.key.evaluated_value): element.value
        for element in table.elements
        if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString)
    }


def _in_annotation(module: Module, node: cst.CSTNode) -> bool:
    return any(isinstance(parent, cst.Annotation) for _, parent in module.ancestors(node))


def _annotation(module: Module, node: cst.SimpleString, value: str) -> None:
    """Rewrite the names inside a quoted annotation."""
    try:
        inner = Module(value)
    except Unreadable:
        return
    edits: list[Edit] = []
    for use in inner.all(cst.Attribute):
        path = dotted(use)
        if not path.startswith("channels.") or isinstance(inner.parent(use), cst.Attribute):
            continue
        found = successor(path)
        if isinstance(found, Missing):
            module.remark(node, str(found))
            return
        edits.append(Edit(*inner.span(use), found.path))
    if node.raw_value != value:
        module.remark(node, "a quoted annotation names Channels and has escapes: change it by hand")
        return
    start = module.span(node)[0] + len(node.prefix) + len(node.quote)
    module.edits += [Edit(start + edit.start, start + edit.end, edit.text) for edit in edits]
