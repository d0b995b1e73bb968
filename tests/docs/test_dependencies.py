"""The page on dependencies: it names each that is declared."""

import re
import tomllib

from tests.docs.pages import ROOT


def declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    for requirement in (
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(requirement for extra in extras for requirement in extra),
        *(requirement for group in groups for requirement in group),
    ):
        yield re.match(r"[\w.-]+", requirement)[0].lower()


def test_every_dependency_is_listed_and_no_other():
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| (?!package )([^|-][^|]*) \|", page, re.MULTILINE)
    listed = {name.split()[0].lower() for row in rows for name in row.split(", ")}
    assert listed == set(declared())
