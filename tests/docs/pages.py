"""Pages of the documentation, as what they tell the reader to do."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
#: Where ``python``, ``django-admin`` and ``headrace`` are the ones under test.
BIN = Path(sys.executable).parent

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:# |\{# )(?P<path>[\w./]+)(?P<append>, at the end)?(?: #\})?\n")


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    text: str
    #: Where it stands, for messages.
    place: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found[1], found[2], f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}")
        for found in _BLOCK.finditer(text)
    ]


class Project:
    """A folder in which somebody does what a page says."""

    #: What makes the folder and the environment, both of which are here already.
    ALREADY_DONE = re.compile(r"mkdir \w+|cd \w+|python3 -m venv|\. \.venv/|pip install headrace$")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def follow(self, block: Block) -> None:
        """Write the block's file, or run its commands."""
        if block.language == "console":
            for line in block.lines:
                if not self.ALREADY_DONE.match(line):
                    self.run(line)
            return
        header = _FILE.match(block.text)
        assert header, f"{block.place}: the first line doesn't say which file this is"
        path = self.folder / header["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if header["append"] else ""
        path.write_text(before + block.text)

    def run(self, line: str) -> str:
        done = subprocess.run(
            line,
            shell=True,
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


def environment() -> dict[str, str]:
    """Return an environment that has nothing of the test run's own but its interpreter."""
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "error",
    }
