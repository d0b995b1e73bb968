"""Moves sources, and holds each result to what is promised of all of them."""

import textwrap

from headrace.migrating.python import migrate


def moved(source, **options):
    """Return the new source and the remarks, as texts by line."""
    source = textwrap.dedent(source)
    result = migrate(source, **options)
    again = migrate(result.source, **options)
    assert again.source == result.source, "a second run finds more to change"
    # Line endings and a byte order mark change nothing but themselves.
    windows = migrate(source.replace("\n", "\r\n"), **options)
    assert windows.source == result.source.replace("\n", "\r\n")
    assert windows.remarks == result.remarks
    marked = migrate("\ufeff" + source, **options)
    assert marked.source == "\ufeff" + result.source
    assert marked.remarks == result.remarks
    return result.source, [(remark.line, remark.text) for remark in result.remarks]


def becomes(old, new, **options):
    """Assert that the source becomes the other one, and nothing is left to say."""
    source, remarks = moved(old, **options)
    assert source == textwrap.dedent(new)
    assert remarks == []


def stays(source, *remarks, **options):
    """Assert that the source stays, with these remarks: (line, what the text contains)."""
    after, found = moved(source, **options)
    assert after == textwrap.dedent(source)
    assert [line for line, _ in found] == [line for line, _ in remarks], found
    for (_, text), (_, part) in zip(found, remarks, strict=True):
        assert part in text
