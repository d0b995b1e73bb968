"""What the site says is said in each of its languages, and the compiled catalogues are in step."""

import ast
import gettext
import re
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"
CATALOGUES = sorted(DEMO.glob("*/locale/*/LC_MESSAGES/*.po"))
ENTRY = re.compile(r'^msgid ((?:"(?:[^"\\]|\\.)*"\n)+)', re.MULTILINE)


def said(text):
    """Return the texts of a catalogue that are to be translated."""
    blocks = (re.findall(r'"(?:[^"\\]|\\.)*"', block) for block in ENTRY.findall(text))
    return [text for block in blocks if (text := "".join(map(ast.literal_eval, block)))]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: str(path.relative_to(DEMO)))
def test_a_catalogue_is_complete_and_compiled(path):
    content = path.read_text(encoding="utf-8")
    assert "fuzzy" not in content
    with path.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    texts = said(content)
    assert texts
    plural = set(re.findall(r'^msgid_plural "(.*)"$', content, re.MULTILINE))
    for text in texts:
        found = compiled._catalog.get(text) or compiled._catalog.get((text, 0))
        assert found, f"tools/words: no translation of {text!r}"
    assert len(compiled._catalog) >= len(texts) - len(plural)


def test_every_application_that_speaks_has_one():
    speaking = {
        path.relative_to(DEMO).parts[0]
        for path in DEMO.glob("*/templates/**/*.html")
        if "{% translate" in path.read_text(encoding="utf-8")
    }
    assert speaking <= {path.relative_to(DEMO).parts[0] for path in CATALOGUES}
