"""What is installed: a wheel has the page's templates, scripts and styles, and their licence."""

import shutil
import subprocess
import sys
import zipfile

from tests.docs.pages import ROOT

PACKAGE = ROOT / "src/headrace/operations"


def test_a_wheel_has_all_that_the_page_is_made_of(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.so", "*.egg-info", "*.pyc")
    )
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [
            *(
                sys.executable,
                "-c",
                "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])",
            ),
            str(tmp_path),
        ],
        cwd=source,
        env={"PATH": "/usr/bin:/bin", "HEADRACE_PURE": "1"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    there = {
        f"headrace/operations/{path.relative_to(PACKAGE)}"
        for folder in ("locale", "static", "templates")
        for path in (PACKAGE / folder).rglob("*")
        if path.is_file()
    }
    assert {path.rpartition("/")[2] for path in there} >= {"uPlot.iife.min.js", "LICENSE"}
    assert there <= set(zipfile.ZipFile(wheel).namelist())
