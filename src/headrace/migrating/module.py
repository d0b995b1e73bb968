"""One Python module, parsed: its nodes, with their places, parents and scopes.

Rules of this file:

- A source that libcst does not give back to the byte is not touched: its places would be wrong.
- Python's own parser looks first: what it refuses, libcst may accept, or not survive.
"""

import ast
import re
import threading
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import libcst as cst
from libcst import metadata

from .edits import Edit, Remark

__all__ = ["Module", "Unreadable", "check_syntax", "dotted", "walk"]

_BOM = "\ufeff"

_TOO_DEEP = "it nests too deeply"
_LINE_END = re.compile(rb"\r\n|\r|\n")

#: Address space, of which only what is used takes memory.
_STACK_BYTES = 512 << 20

Node = TypeVar("Node", bound=cst.CSTNode)


class Unreadable(Exception):
    """The source is no Python that can be read and written; the text says where it fails."""


class Module:
    """A parsed module, and what is found out about it: edits and remarks."""

    def __init__(self, source: str) -> None:
        self.source = source
        # The parser drops a byte order mark; it is three bytes of UTF-8.
        text = source.removeprefix(_BOM)
        self._offset = len(source.encode()) - len(text.encode())
        check_syntax(text)
        try:
            parsed = _parse(text)
            if parsed.code != text:
                raise Unreadable("its line endings or blank lines can't be kept as they are")
            self._wrapper = metadata.MetadataWrapper(parsed, unsafe_skip_copy=True)
            self._spans = self._wrapper.resolve(metadata.ByteSpanPositionProvider)
        except cst.ParserSyntaxError as error:
            raise Unreadable(f"line {error.raw_line}: {error.message.splitlines()[0]}") from None
        except RecursionError:
            raise Unreadable(_TOO_DEEP) from None
        self._parents = dict(_family(self._wrapper.module))
        #: All nodes but the root, in the order of the text.
        self.nodes = list(self._parents)
        self._line_ends = [found.start() for found in _LINE_END.finditer(source.encode())]
        self.edits: list[Edit] = []
        self.remarks: list[Remark] = []

    @cached_property
    def _scopes(self) -> Mapping[cst.CSTNode, metadata.Scope | None]:
        # The most expensive part, of which a module that only has strings has no need.
        try:
            return self._wrapper.resolve(metadata.ScopeProvider)
        except RecursionError:
            raise Unreadable(_TOO_DEEP) from None

    def all(self, kind: type[Node]) -> Iterator[Node]:
        """Return the nodes of this kind, in the order of the text."""
        return (node for node in self.nodes if isinstance(node, kind))

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return where the node begins and ends, in bytes."""
        span = self._spans[node]
        start: int = span.start + self._offset
        return start, start + span.length

    def line(self, node: cst.CSTNode) -> int:
        """Return the line on which the node begins."""
        return bisect_left(self._line_ends, self.span(node)[0]) + 1

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """Return the node that this one is a part of."""
        return self._parents.get(node)

    def scope(self, node: cst.CSTNode) -> metadata.Scope | None:
        """Return the scope in which a name is looked up; None for what is no reference."""
        return self._scopes.get(node)

    def ancestors(self, node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
        """Yield (node, its parent) from here to the root."""
        while (parent := self.parent(node)) is not None:
            yield node, parent
            node = parent

    def replace(self, node: cst.CSTNode, text: str) -> None:
        """Put this text in the node's place."""
        self.edits.append(Edit(*self.span(node), text))

    def remark(self, node: cst.CSTNode, text: str) -> None:
        """Have somebody look at the node's line."""
        remark = Remark(self.line(node), text)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def remark_all(self, node: cst.CSTNode, texts: Iterable[object]) -> None:
        """Have somebody look at the node's line, for several reasons."""
        for text in texts:
            self.remark(node, str(text))


def check_syntax(text: str) -> ast.Module:
    """Parse with the interpreter's own parser; Unreadable for what is no Python to that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the project wrote
            return ast.parse(text)
    except SyntaxError as error:
        raise Unreadable(f"line {error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    except (MemoryError, RecursionError):
        raise Unreadable(_TOO_DEEP) from None


def _parse(text: str) -> cst.Module:
    """Parse in a thread with a large stack: libcst's parser recurses without a limit."""
    stack_bytes = threading.stack_size(_STACK_BYTES)
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(cst.parse_module, text).result()
    finally:
        threading.stack_size(stack_bytes)


def walk(root: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield the node and all below it, in the order of the text."""
    yield root
    for node, _ in _family(root):
        yield node


def _family(root: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """Yield (node, its parent) for all below the root, in the order of the text."""
    # With a stack of its own: an expression of a thousand operands nests a thousand deep.
    waiting = [(child, root) for child in reversed(root.children)]
    while waiting:
        node, parent = waiting.pop()
        yield node, parent
        waiting += [(child, node) for child in reversed(node.children)]


def dotted(node: Any) -> str:
    """Return ``a.b.c`` for names and attributes of names; an empty text for anything else."""
    parts = []
    while isinstance(node, cst.Attribute):
        parts.append(node.attr.value)
        node = node.value
    if not isinstance(node, cst.Name):
        return ""
    return ".".join([node.value, *reversed(parts)])
