#!/usr/bin/env python3
"""Prints how long the files of each folder are; exits 1 if one is over its limit without a reason given here.

usage: size_report.py [ROOT]    ROOT: the checkout (default: the one this script is in)
"""
import math
import sys
from pathlib import Path

LIMITS = {".cpp": 500, ".cu": 500, ".h": 250, ".py": 500}  # lines
FOLDERS = ("src", "apps", "tests", "bench", "scripts", "examples")

# path: why it may be longer. A file is split by noun, never by "part 2"; a reason is something like "a generated table".
EXCEPTIONS: dict[str, str] = {}


def quantile(sorted_values, share):
    """The smallest value that at least `share` of the values do not exceed."""
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


def measure(root: Path):
    """{path: lines} of every source file, paths relative to the checkout."""
    lines = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in LIMITS and path.is_file():
                with path.open("rb") as file:
                    lines[path.relative_to(root).as_posix()] = sum(1 for _ in file)
    return lines


def group_of(path):
    """src/plan, apps/penstock, tests, ...: two levels where the first is only a container."""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] in ("src", "apps") and len(parts) > 2 else parts[0]


def table(lines):
    groups = {}
    for path, count in lines.items():
        groups.setdefault(group_of(path), []).append((count, path))
    yield f"{'folder':<16} {'files':>5} {'lines':>7} {'median':>7} {'p90':>5} {'max':>5}  longest"
    total = []
    for group, members in groups.items():
        members.sort()
        total += members
        yield row(group, members)
    if total:
        yield row("all", sorted(total))


def row(name, members):
    counts = [count for count, _ in members]
    return (f"{name:<16} {len(counts):>5} {sum(counts):>7} {quantile(counts, 0.5):>7} {quantile(counts, 0.9):>5} {counts[-1]:>5}  "
            f"{members[-1][1].rsplit('/', 1)[-1]}")


def over_limit(lines, exceptions):
    for path, count in lines.items():
        limit = LIMITS[Path(path).suffix]
        if count > limit and path not in exceptions:
            yield f"{path}: {count} lines, the limit is {limit}: split it by noun, or give a reason in scripts/size_report.py"
    for path in exceptions:
        if path not in lines or lines[path] <= LIMITS[Path(path).suffix]:
            yield f"{path}: needs no exception any more; take it out of scripts/size_report.py"


def main(arguments):
    if len(arguments) > 1 or any(a.startswith("-") for a in arguments):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    lines = measure(root)
    print("\n".join(table(lines)))
    problems = list(over_limit(lines, EXCEPTIONS))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
