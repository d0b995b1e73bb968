"""``python3 -m fuzz``: every parser in turn, from the corpus on.

Prints what each has reached. What breaks a law is kept in ``reports/fuzz``, with the command
that shows it again, and makes the exit status 1. New inputs are merged into the corpus with --keep.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .seeds import SEEDS, WORDS
from .targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "fuzz" / "corpus"
REPORTS = ROOT / "reports" / "fuzz"
#: One input may be so long; the limits under test are shorter.
LONGEST = 512
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+")


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seconds = max(1, round(options.minutes * 60 / len(options.targets)))
    print(f"{'':20}{'executions':>12}{'branches':>10}{'features':>10}{'inputs':>8}  found")
    clean, executions = True, 0
    for name in options.targets:
        done, found = _fuzz(name, seconds)
        executions += int(done[0])
        clean &= not found
        print(f"{name:20}{int(done[0]):12,}{done[1]:>10}{done[2]:>10}{done[3]:>8}  {len(found)}")
        for path in found:
            print(f"    python3 -m fuzz.one {name} {path.relative_to(ROOT)}")
        sys.stdout.flush()
        if options.keep and not found:
            _merge(name)
    print(f"{'all':20}{executions:12,}")
    return 0 if clean else 1


def _fuzz(name: str, seconds: int) -> tuple[tuple[str, ...], list[Path]]:
    """Run one target; what it has reached, and the inputs that break it."""
    folder = REPORTS / name
    shutil.rmtree(folder, ignore_errors=True)
    begin = folder / "begin"
    begin.mkdir(parents=True)
    (folder / "found").mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (begin / f"seed-{number}").write_bytes(seed)
    command = [sys.executable, "-m", "fuzz.one", name, str(folder / "found"), str(begin)]
    command += [str(corpus)] if (corpus := CORPUS / name).is_dir() else []
    command += [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=10", "-seed=1"]
    command += [f"-artifact_prefix={folder}/", "-rss_limit_mb=1024", "-print_final_stats=1"]
    if words := WORDS.get(name):
        (folder / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in words))
        command.append(f"-dict={folder / 'words'}")
    with (folder / "log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False)
    text = (folder / "log").read_text(errors="replace")
    matched = _DONE.findall(text)
    kinds = ("crash-", "timeout-", "oom-", "leak-", "slow-unit-")
    found = sorted(path for path in folder.iterdir() if path.name.startswith(kinds))
    if not matched and not found:
        print(text[-2000:])
        raise SystemExit(f"the fuzzer of {name} did not run: see {folder / 'log'}")
    return (matched[-1] if matched else ("0", "0", "0", "0")), found


def _merge(name: str) -> None:
    """Keep the smallest set of inputs that reaches as much."""
    corpus, merged = CORPUS / name, REPORTS / name / "merged"
    merged.mkdir()
    folders = [REPORTS / name / "found", REPORTS / name / "begin", *([corpus] * corpus.is_dir())]
    command = [sys.executable, "-m", "fuzz.one", name, str(merged), *map(str, folders)]
    with (REPORTS / name / "merge.log").open("w") as log:
        subprocess.run(
            [*command, "-merge=1"], cwd=ROOT, stdout=log, stderr=log, check=True, timeout=300
        )
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.parent.mkdir(exist_ok=True)
    merged.rename(corpus)


def _escaped(word: bytes) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="targets:\n" + "\n".join(f"  {n:20} {f.__doc__}" for n, f in TARGETS.items()),
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10, help="for all targets together (10)")
    add("--only", default="", metavar="A,B", help="only these targets, or all that begin so")
    add("--keep", action="store_true", help="merge what was found into the corpus")
    options = parser.parse_args()
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    for name in chosen:
        if not any(each.startswith(name) for each in TARGETS):
            parser.error(f"--only: no such target: {name}")
    options.targets = [
        each for each in TARGETS if not chosen or any(each.startswith(name) for name in chosen)
    ]
    return options


if __name__ == "__main__":
    sys.exit(main())
