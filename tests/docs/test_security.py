"""The page on security: every test that it names is there, every attack and every fuzzer on it."""

import re
import subprocess
import sys

from attack.catalogue import ATTACKS
from fuzz.targets import TARGETS

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
_ID = re.compile(r"`(tests/[\w/]+\.py(?:::\w+)+)`")
LESSONS, FOUND = 26, 14


def rows(heading):
    """The rows of the table below a heading, without its head."""
    _, _, section = PAGE.partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_row_names_its_tests():
    assert len(rows("What others have learned")) >= LESSONS
    assert len(rows("What was found in other servers")) >= FOUND
    for row in (*rows("What others have learned"), *rows("What was found in other servers")):
        assert _ID.search(row.split("|")[3]), f"no test answers {row}"


def without_parameters(ids):
    return {each.partition("[")[0] for each in ids}


def test_the_tests_that_are_named_are_collected(request):
    named = set(_ID.findall(PAGE))
    # Where all tests are run, they are here already.
    elsewhere = named - without_parameters(item.nodeid for item in request.session.items)
    if not elsewhere:
        return
    files = sorted({name.partition("::")[0] for name in elsewhere})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert elsewhere - without_parameters(done.stdout.splitlines()) == set()


def test_every_attack_is_listed_and_no_other():
    listed = {
        key for row in rows("Attacks") for key in re.findall(r"`([\w-]+)`", row.split("|")[1])
    }
    assert listed == {attack.key for attack in ATTACKS}


def test_every_fuzzer_is_listed_and_no_other():
    listed = {key for row in rows("Fuzzing") for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == TARGETS.keys()
