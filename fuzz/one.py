"""``python3 -m fuzz.one TARGET FOLDER... [-max_total_time=60 ...]``: atheris, on one target.

The arguments after the target are libFuzzer's.
"""

import sys

import atheris

with atheris.instrument_imports(include=["headrace"]):
    from fuzz.targets import TARGETS

__all__ = ["main"]


def main() -> None:
    name, *arguments = sys.argv[1:]
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
