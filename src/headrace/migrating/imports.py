"""Imports of Channels, and the names that they bind.

Rules of this file:

- What is rewritten together is what binds one variable in one scope: the imports, and each use
  of the name. If one of them has no successor, none is touched and each that fails is
  remarked upon, so that no module ends up with half of its names.
- A use is followed by Python's rules of scope, not by spelling: a parameter or a local variable
  that happens to be called ``channels`` stays.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import libcst as cst
from libcst import metadata

from .module import Module, dotted
from .names import Missing, Successor, advice_for_import, is_module, successor

__all__ = ["rewrite_imports"]

_ROOT = "channels"
_NEW_ROOT = "headrace"

#: One variable of one scope.
_Variable: TypeAlias = tuple[metadata.Scope, str]


def rewrite_imports(module: Module, *, own: frozenset[str] = frozenset()) -> None:
    """Find edits and remarks for all imports; ``own`` are the project's own top-level names."""
    for from_statement in module.all(cst.ImportFrom):
        _import_from(module, from_statement, own)
    roots: dict[_Variable, list[cst.ImportAlias]] = defaultdict(list)
    for statement in module.all(cst.Import):
        for alias in statement.names:
            path = dotted(alias.name)
            if path.partition(".")[0] != _ROOT:
                _advise(module, statement, path, own)
            elif alias.asname is not None:
                _import_as(module, statement, alias)
            else:
                scope = module.scope(statement)
                assert scope is not None
                roots[_home(scope, _ROOT), _ROOT].append(alias)
    for (scope, _), aliases in roots.items():
        _import_plain(module, scope, aliases)


def _advise(module: Module, statement: cst.CSTNode, path: str, own: frozenset[str]) -> None:
    if path.partition(".")[0] in own:
        return
    advice = advice_for_import(path)
    if advice is not None:
        module.remark(statement, advice)


def _import_from(module: Module, statement: cst.ImportFrom, own: frozenset[str]) -> None:
    if statement.relative or statement.module is None:
        return
    package = dotted(statement.module)
    if package.partition(".")[0] != _ROOT:
        if isinstance(statement.names, cst.ImportStar):
            _advise(module, statement, package, own)
        else:
            for alias in statement.names:
                _advise(module, statement, f"{package}.{dotted(alias.name)}", own)
        return
    if isinstance(statement.names, cst.ImportStar):
        found = successor(package)
        if isinstance(found, Missing):
            module.remark(statement, str(found))
            return
        module.replace(statement.module, found.path)
        module.remark(
            statement,
            f"from {package} import *: {found.path} hands out its public names only; "
            "name what else came along",
        )
        return
    found_names = [
        (alias, successor(f"{package}.{dotted(alias.name)}")) for alias in statement.names
    ]
    problems = [found for _, found in found_names if isinstance(found, Missing)]
    for alias, found in found_names:
        if isinstance(found, Successor):
            path = f"{package}.{dotted(alias.name)}"
            of_uses = _problems(_uses(module, statement, _bound(alias)), path)
            if is_module(path):
                problems += of_uses
            else:
                for problem in of_uses:
                    module.remark(statement, str(problem))
    homes = {
        found.path.rpartition(".")[0] for _, found in found_names if isinstance(found, Successor)
    }
    if len(homes) > 1:
        _remark_scattered(module, statement, package, found_names)
        homes = set()
    for problem in problems:
        module.remark(statement, str(problem))
    if problems or not homes:
        return
    module.replace(statement.module, homes.pop())
    for alias, found in found_names:
        assert isinstance(found, Successor)
        _rename(module, alias, found.path.rpartition(".")[2])
        path = f"{package}.{dotted(alias.name)}"
        if is_module(path):
            _replace_uses(module, _uses(module, statement, _bound(alias)), path)


def _remark_scattered(
    module: Module,
    statement: cst.ImportFrom,
    package: str,
    found_names: Sequence[tuple[cst.ImportAlias, Successor | Missing]],
) -> None:
    """Say which names of one statement come from elsewhere now."""
    expected = successor(package)
    for _, found in found_names:
        if isinstance(found, Successor) and isinstance(expected, Successor):
            home, _, name = found.path.rpartition(".")
            if home != expected.path:
                module.remark(
                    statement,
                    f"{package}.{name} is no public name of Channels: import it from {home}, "
                    "in a statement of its own",
                )


def _rename(module: Module, alias: cst.ImportAlias, name: str) -> None:
    old = dotted(alias.name)
    if name != old:
        module.replace(alias.name, name if alias.asname is not None else f"{name} as {old}")


def _import_as(module: Module, statement: cst.Import, alias: cst.ImportAlias) -> None:
    path = dotted(alias.name)
    found = successor(path)
    uses = _uses(module, statement, _bound(alias))
    problems = [found] if isinstance(found, Missing) else _problems(uses, path)
    for problem in problems:
        module.remark(statement, str(problem))
    if not problems:
        assert isinstance(found, Successor)
        module.replace(alias.name, found.path)
        _replace_uses(module, uses, path)


def _import_plain(
    module: Module, scope: metadata.Scope, aliases: Sequence[cst.ImportAlias]
) -> None:
    """Rewrite ``import channels`` and ``import channels.layers``, which both bind ``channels``."""
    uses = list(_uses_in(module, scope, _ROOT))
    problems: list[tuple[cst.CSTNode, str]] = [
        (alias, str(found))
        for alias in aliases
        if isinstance(found := successor(dotted(alias.name)), Missing)
    ]
    for use in uses:
        problems += [(use[-1], str(problem)) for problem in _problems([use], _ROOT)]
    imports = {module.parent(alias) for alias in aliases}
    for assignment in scope[_ROOT]:
        node = getattr(assignment, "node", None)
        if node not in imports and not _is_plain_assignment(module, node):
            problems.append((aliases[0], "the name channels stands for something else here, too"))
    if any(_is_bound_otherwise(assignment) for assignment in scope[_NEW_ROOT]):
        problems.append((aliases[0], "the name headrace stands for something else here"))
    if any(
        item.name.value == _ROOT
        for names in (
            *(statement.names for statement in module.all(cst.Global)),
            *(statement.names for statement in module.all(cst.Nonlocal)),
        )
        for item in names
    ):
        problems.append((aliases[0], "the name channels is declared global or nonlocal"))
    for node, problem in problems:
        module.remark(node, problem)
    if problems:
        return
    for alias in aliases:
        found = successor(dotted(alias.name))
        assert isinstance(found, Successor)
        module.replace(alias.name, found.path)
    _replace_uses(module, uses, _ROOT)


def _is_plain_assignment(module: Module, node: cst.CSTNode | None) -> bool:
    """Tell whether this is the name in ``channels = None``, after an import that failed."""
    return isinstance(node, cst.Name) and isinstance(
        module.parent(node), cst.AssignTarget | cst.AnnAssign
    )


def _is_bound_otherwise(assignment: metadata.BaseAssignment) -> bool:
    node = getattr(assignment, "node", None)
    if isinstance(node, cst.Import):
        return not any(dotted(alias.name).partition(".")[0] == _NEW_ROOT for alias in node.names)
    return True


def _bound(alias: cst.ImportAlias) -> str:
    """Return the variable that ``... import a as b`` binds."""
    return dotted(alias.asname.name if alias.asname is not None else alias.name)


def _home(scope: metadata.Scope, name: str) -> metadata.Scope:
    """Return the scope whose variable this is."""
    return next((assignment.scope for assignment in scope[name]), scope)


def _uses(module: Module, statement: cst.CSTNode, name: str) -> list[list[cst.CSTNode]]:
    """Return the uses of a name that this statement binds."""
    scope = module.scope(statement)
    assert scope is not None
    uses = []
    for use in _uses_in(module, _home(scope, name), name):
        where = module.scope(use[0])
        assert where is not None
        if any(getattr(assignment, "node", None) is statement for assignment in where[name]):
            uses.append(use)
    return uses


def _uses_in(module: Module, scope: metadata.Scope, name: str) -> Iterator[list[cst.CSTNode]]:
    """Yield each use of a variable: its Name, and the Attributes that are taken of it."""
    for node in module.all(cst.Name):
        if node.value != name:
            continue
        where = module.scope(node)
        if where is None or not any(found.scope is scope for found in where[name]):
            continue
        parent = module.parent(node)
        if isinstance(parent, cst.Param | cst.FunctionDef | cst.ClassDef) and parent.name is node:
            continue
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if isinstance(parent, cst.Arg) and parent.keyword is node:
            continue
        use: list[cst.CSTNode] = [node]
        while isinstance(parent, cst.Attribute) and parent.value is use[-1]:
            use.append(parent)
            parent = module.parent(parent)
        yield use


def _path(use: list[cst.CSTNode], root: str) -> str:
    return ".".join(
        [root, *(node.attr.value for node in use[1:] if isinstance(node, cst.Attribute))]
    )


def _problems(uses: Sequence[list[cst.CSTNode]], root: str) -> list[Missing]:
    """Return what is used and has no successor, or is to be imported from elsewhere."""
    problems = []
    for use in uses:
        path = _path(use, root)
        found = successor(path)
        if isinstance(found, Missing):
            problems.append(found)
        elif (
            is_module(root)
            and found.path.split(".")[0:1] + path.split(".")[1:-1] != (found.path.split(".")[:-1])
        ):
            home = found.path.rpartition(".")[0]
            problems.append(Missing(path, f"is no public name of Channels: it is in {home}"))
    return problems


def _replace_uses(module: Module, uses: Sequence[list[cst.CSTNode]], root: str) -> None:
    """Rewrite the parts of each use that have another name now."""
    for use in uses:
        path = _path(use, root)
        found = successor(path)
        assert isinstance(found, Successor)
        old, new = path.split("."), found.path.split(".")
        shift = root.count(".")
        for node, before, after in zip(use, old[shift:], new[shift:], strict=True):
            if before != after and (shift == 0 or node is not use[0]):
                module.replace(node.attr if isinstance(node, cst.Attribute) else node, after)
