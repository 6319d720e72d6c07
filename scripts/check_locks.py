#!/usr/bin/env python3
"""Checks the lock annotations of base/mutex.h with clang's -Wthread-safety; prints what clang finds and exits 1 if there is anything.

usage: check_locks.py BUILD     BUILD: a configured folder, for its compile_commands.json

Parsed are the torch-free sources that name a lock, or include a header that does: elsewhere there is nothing to find, and clang parses a file in 3 s.
"""
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from check_layers import INCLUDE, TORCH_FREE

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
LOCK = re.compile(r"\b(Mutex|MutexLock|GUARDED_BY|REQUIRES|EXCLUDES)\b")
GCC_ONLY = re.compile(r"-fpch-preprocess|-fno-reorder-blocks-and-partition|-Wno-restrict|-Wno-maybe-uninitialized|-flto.*|-fno-fat-lto-objects")


def names_locks(path: Path) -> bool:
    return path.is_file() and bool(LOCK.search(path.read_text(encoding="utf-8")))


def has_locks(source: Path) -> bool:
    text = source.read_text(encoding="utf-8")
    return bool(LOCK.search(text)) or any(names_locks(SRC / match.group(1)) for match in INCLUDE.finditer(text))


def is_torch_free(source: Path) -> bool:  # REQUIRES: below ROOT
    folder = source.relative_to(ROOT).parent.as_posix()
    return folder.removeprefix("src/") in TORCH_FREE


def clang_command(entry: dict) -> list[str]:
    words = shlex.split(entry["command"])
    compiler = next(i for i, word in enumerate(words) if re.search(r"(\+\+|g\+\+|cc)(-\d+)?$", word) and "ccache" not in word)
    flags = [word for word in words[compiler + 1:] if not GCC_ONLY.fullmatch(word)]
    output = flags.index("-o")
    del flags[output:output + 2]
    return ["clang++", *flags, "-fsyntax-only", "-Wthread-safety", "-Werror"]


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    entries = json.loads((Path(sys.argv[1]) / "compile_commands.json").read_text(encoding="utf-8"))
    sources = [e for e in entries if Path(e["file"]).is_relative_to(ROOT) and is_torch_free(Path(e["file"]))
               and not e["file"].endswith("_test.cpp") and has_locks(Path(e["file"]))]
    if not sources:
        print(f"check_locks: {sys.argv[1]}/compile_commands.json names no source that uses locks", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = list(pool.map(lambda e: subprocess.run(clang_command(e), cwd=e["directory"], capture_output=True, text=True), sources))
    failed = [run for run in runs if run.returncode != 0]
    for run in failed:
        print(run.stderr, file=sys.stderr)
    print(f"{len(sources)} files with locks checked by clang, {len(failed)} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
