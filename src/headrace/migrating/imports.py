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
from dataclasses import dataclass
from typing import TypeAlias

import libcst as cst
from libcst import metadata

from .module import Module, dotted
from .names import Missing, Successor, advice_for_import, is_module, successor

__all__ = ["rewrite_imports"]

_ROOT = "channels"
_NEW_ROOT = "headrace"

#: A use of a variable: its Name, and the Attributes that are taken of it, from left to right.
_Use: TypeAlias = list[cst.CSTNode]


def rewrite_imports(module: Module, *, own: frozenset[str] = frozenset()) -> None:
    """Find edits and remarks for all imports; ``own`` are the project's own top-level names."""
    for from_statement in module.all(cst.ImportFrom):
        _from(module, from_statement, own)
    roots: dict[metadata.Scope, list[cst.ImportAlias]] = defaultdict(list)
    for statement in module.all(cst.Import):
        for alias in statement.names:
            path = dotted(alias.name)
            if path.partition(".")[0] != _ROOT:
                _advise(module, statement, path, own)
            elif alias.asname is not None:
                _as(module, statement, alias)
            else:
                roots[_home(module, statement, _ROOT)].append(alias)
    for scope, aliases in roots.items():
        _plain(module, scope, aliases)


def _advise(module: Module, statement: cst.CSTNode, path: str, own: frozenset[str]) -> None:
    advice = None if path.partition(".")[0] in own else advice_for_import(path)
    if advice is not None:
        module.remark(statement, advice)


@dataclass(frozen=True, slots=True)
class _Imported:
    """One name of a ``from ... import``."""

    alias: cst.ImportAlias
    path: str
    found: Successor | Missing


def _from(module: Module, statement: cst.ImportFrom, own: frozenset[str]) -> None:
    if statement.relative or statement.module is None:
        return
    package = dotted(statement.module)
    star = isinstance(statement.names, cst.ImportStar)
    if package.partition(".")[0] == _ROOT:
        (_from_star if star else _from_names)(module, statement, package)
    elif isinstance(statement.names, cst.ImportStar):
        _advise(module, statement, package, own)
    else:
        for alias in statement.names:
            _advise(module, statement, f"{package}.{dotted(alias.name)}", own)


def _from_star(module: Module, statement: cst.ImportFrom, package: str) -> None:
    found = successor(package)
    if isinstance(found, Missing):
        module.remark(statement, str(found))
        return
    assert statement.module is not None
    module.replace(statement.module, found.path)
    module.remark(
        statement,
        f"from {package} import *: {found.path} hands out its public names only; "
        "name what else came along",
    )


def _from_names(module: Module, statement: cst.ImportFrom, package: str) -> None:
    assert statement.module is not None
    assert not isinstance(statement.names, cst.ImportStar)
    names = []
    for alias in statement.names:
        path = f"{package}.{dotted(alias.name)}"
        names.append(_Imported(alias, path, successor(path)))
    problems = [name.found for name in names if isinstance(name.found, Missing)]
    for name in names:
        found = _problems(_uses(module, statement, _bound(name.alias)), name.path)
        if is_module(name.path):
            problems += found
        else:  # of a class, whose own name is well
            module.remark_all(statement, found)
    homes = {
        name.found.path.rpartition(".")[0] for name in names if isinstance(name.found, Successor)
    }
    if len(homes) > 1:
        problems += _scattered(package, names)
    if problems:
        module.remark_all(statement, problems)
        return
    module.replace(statement.module, homes.pop())
    for name in names:
        assert isinstance(name.found, Successor)
        _rename(module, name.alias, name.found.path.rpartition(".")[2])
        if is_module(name.path):
            _replace(module, _uses(module, statement, _bound(name.alias)), name.path)


def _scattered(package: str, names: Sequence[_Imported]) -> Iterator[Missing]:
    """Yield the names of one statement that are not where the others are."""
    for name in names:
        if isinstance(name.found, Successor) and not _keeps_its_place(name.path, name.found.path):
            home = name.found.path.rpartition(".")[0]
            yield Missing(
                f"{package}.{dotted(name.alias.name)}",
                f"is no public name of Channels: import it from {home}, in a statement of its own",
            )


def _rename(module: Module, alias: cst.ImportAlias, name: str) -> None:
    old = dotted(alias.name)
    if name != old:
        module.replace(alias.name, name if alias.asname is not None else f"{name} as {old}")


def _as(module: Module, statement: cst.Import, alias: cst.ImportAlias) -> None:
    path = dotted(alias.name)
    found = successor(path)
    uses = _uses(module, statement, _bound(alias))
    problems = [found] if isinstance(found, Missing) else _problems(uses, path)
    module.remark_all(statement, problems)
    if isinstance(found, Successor) and not problems:
        module.replace(alias.name, found.path)
        _replace(module, uses, path)


def _plain(module: Module, scope: metadata.Scope, aliases: Sequence[cst.ImportAlias]) -> None:
    """Rewrite ``import channels`` and ``import channels.layers``, which both bind ``channels``."""
    uses = list(_uses_in(module, scope, _ROOT))
    found = [(alias, successor(dotted(alias.name))) for alias in aliases]
    problems: list[tuple[cst.CSTNode, str]] = [
        (alias, str(missing)) for alias, missing in found if isinstance(missing, Missing)
    ]
    for use in uses:
        problems += [(use[-1], str(problem)) for problem in _problems([use], _ROOT)]
    problems += [(aliases[0], text) for text in _clashes(module, scope, aliases)]
    for node, problem in problems:
        module.remark(node, problem)
    if problems:
        return
    for alias, new in found:
        assert isinstance(new, Successor)
        module.replace(alias.name, new.path)
    _replace(module, uses, _ROOT)


def _clashes(
    module: Module, scope: metadata.Scope, aliases: Sequence[cst.ImportAlias]
) -> Iterator[str]:
    """Say why the variable ``channels`` can't be renamed to ``headrace``."""
    imports = {module.parent(alias) for alias in aliases}
    for assignment in scope[_ROOT]:
        node = getattr(assignment, "node", None)
        # ``channels = None`` after an import that failed is renamed with the rest.
        plain = isinstance(node, cst.Name) and isinstance(
            module.parent(node), cst.AssignTarget | cst.AnnAssign
        )
        if node not in imports and not plain:
            yield "the name channels stands for something else here, too"
    for assignment in scope[_NEW_ROOT]:
        node = getattr(assignment, "node", None)
        if not isinstance(node, cst.Import) or not any(
            dotted(alias.name).partition(".")[0] == _NEW_ROOT for alias in node.names
        ):
            yield "the name headrace stands for something else here"
    declared = [
        *(statement.names for statement in module.all(cst.Global)),
        *(statement.names for statement in module.all(cst.Nonlocal)),
    ]
    if any(item.name.value == _ROOT for names in declared for item in names):
        yield "the name channels is declared global or nonlocal"


def _bound(alias: cst.ImportAlias) -> str:
    """Return the variable that ``... import a as b`` binds."""
    return dotted(alias.asname.name if alias.asname is not None else alias.name)


def _home(module: Module, statement: cst.CSTNode, name: str) -> metadata.Scope:
    """Return the scope in which the statement binds the name."""
    scope = module.scope(statement)
    assert scope is not None
    return next(assignment.scope for assignment in scope[name])


def _uses(module: Module, statement: cst.CSTNode, name: str) -> list[_Use]:
    """Return the uses of a name that this statement binds."""
    uses = []
    for use in _uses_in(module, _home(module, statement, name), name):
        where = module.scope(use[0])
        assert where is not None
        if any(getattr(assignment, "node", None) is statement for assignment in where[name]):
            uses.append(use)
    return uses


def _uses_in(module: Module, scope: metadata.Scope, name: str) -> Iterator[_Use]:
    """Yield the uses of a variable of this scope."""
    for node in module.all(cst.Name):
        if node.value != name:
            continue
        parent = module.parent(node)
        where = module.scope(node)
        if (
            where is None
            or (isinstance(parent, cst.Attribute) and parent.attr is node)
            or (isinstance(parent, cst.Arg) and parent.keyword is node)
            or not any(found.scope is scope for found in where[name])
        ):
            continue
        use: _Use = [node]
        while isinstance(parent, cst.Attribute):
            use.append(parent)
            parent = module.parent(parent)
        yield use


def _path(use: _Use, root: str) -> str:
    attributes = [node.attr.value for node in use if isinstance(node, cst.Attribute)]
    return ".".join([root, *attributes])


def _problems(uses: Sequence[_Use], root: str) -> list[Missing]:
    """Return what is used and has no successor, or is to be imported from elsewhere."""
    problems = []
    for use in uses:
        path = _path(use, root)
        found = successor(path)
        if isinstance(found, Missing):
            problems.append(found)
        elif is_module(root) and not _keeps_its_place(path, found.path):
            home = found.path.rpartition(".")[0]
            problems.append(Missing(path, f"is no public name of Channels: it is in {home}"))
    return problems


def _keeps_its_place(old: str, new: str) -> bool:
    """Tell whether a name is in the module of the same path, under whatever name."""
    return old == _ROOT or new.split(".")[:-1] == [_NEW_ROOT, *old.split(".")[1:-1]]


def _replace(module: Module, uses: Sequence[_Use], root: str) -> None:
    """Rewrite the parts of each use that have another name now."""
    depth = root.count(".")
    for use in uses:
        path = _path(use, root)
        found = successor(path)
        assert isinstance(found, Successor)
        old, new = path.split(".")[depth:], found.path.split(".")[depth:]
        for node, before, after in zip(use, old, new, strict=True):
            if before != after and (node is not use[0] or root == _ROOT):
                module.replace(node.attr if isinstance(node, cst.Attribute) else node, after)
