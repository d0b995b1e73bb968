"""``python3 -m fuzz.one TARGET FOLDER... [-max_total_time=60 ...]``: atheris, on one target.

The arguments after the target are libFuzzer's.
"""

import os
import sys

import atheris

# What is compiled has no branches that atheris could count.
os.environ["HEADRACE_PURE"] = "1"
with atheris.instrument_imports(include=["headrace"]):
    from fuzz.targets import TARGETS

__all__ = ["main"]


def main() -> None:
    name, *arguments = sys.argv[1:]
    # libFuzzer calls itself by this name, through a shell, when it merges.
    itself = f"{sys.executable} -m fuzz.one {name}"
    atheris.Setup([itself, *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
