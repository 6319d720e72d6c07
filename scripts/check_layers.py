#!/usr/bin/env python3
"""Checks the include rules of docs/architecture.md; prints every violation and exits 1 if there is one.

usage: check_layers.py [SRC]    SRC: the folder of layers (default: src/ beside this script's folder);
                                apps/, tests/ and CMakeLists.txt beside it are checked too.
"""
import fnmatch
import re
import sys
import time
from pathlib import Path

# A file includes its own folder and folders of strictly lower rank.
RANKS = {
    "base": 0,
    "config": 1, "formats": 1,
    "text": 2, "plan": 2, "cluster": 2, "tensor": 2,
    "handler": 3, "data": 3, "comm": 3, "kernels": 3, "weights": 3,
    "model": 4,
    "pipeline": 5,
    "train": 6, "engine": 6, "frontend": 6,
    "rpc": 7,
    "apps": 8,
}

# These build without LibTorch. apps/penstock is the program; apps/worker is not in the list.
TORCH_FREE = {"base", "config", "text", "formats", "handler", "plan", "cluster", "data", "frontend", "rpc", "apps/penstock", "apps/handler"}
# Headers of LibTorch folders that are torch-free themselves, so that torch-free folders may include them.
TORCH_FREE_HEADERS = {"engine/engine.h"}

# Private headers of src/rpc that may show gRPC types, besides *_reactor.h: they are included by src/rpc/*.cpp only.
GRPC_HEADERS: set[str] = set()

# 13-19 s of compile time each; headers use tensor/tensor_fwd.h or a slim ATen header.
FAT_TORCH = {"torch/torch.h", "torch/all.h", "torch/extension.h", "ATen/ATen.h"}
FAT_TORCH_ALLOWED_IN = {"tensor/torch_pch.h"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
TORCH_HEADER = re.compile(r"^(torch|ATen|c10|caffe2)/")
GRPC_HEADER = re.compile(r"^(grpc|grpcpp|google/protobuf)/|\.pb\.h$")


class Source:
    """A file of src/ or apps/, by the path that includes use, e.g. "plan/action.h" or "apps/penstock/main.cpp"."""

    def __init__(self, path: Path, name: str):
        self.name = name
        self.layer = name.split("/")[0]
        self.folder = name.rsplit("/", 1)[0]
        self.is_header = path.suffix == ".h"
        self.text = path.read_text(encoding="utf-8")

    def includes(self):
        for match in INCLUDE.finditer(self.text):
            yield self.text.count("\n", 0, match.start()) + 1, match.group(1)

    def torch_free(self):
        return self.folder in TORCH_FREE or self.name in TORCH_FREE_HEADERS


def layer_of(include):
    first = include.split("/")[0]
    return first if "/" in include and first in RANKS else None


def check_rank(source, include, exists):
    target = layer_of(include)
    if target is None or target == source.layer:
        return None
    if RANKS[target] < RANKS[source.layer]:
        return None
    return (f"{source.layer} (rank {RANKS[source.layer]}) may not include {target} (rank {RANKS[target]}): "
            "only folders of strictly lower rank")


def check_exists(source, include, exists):
    if layer_of(include) and not exists(include):
        return "there is no such file"
    return None


def check_torch_free(source, include, exists):
    if not source.torch_free():
        return None
    if TORCH_HEADER.match(include):
        return "a torch-free file may not include LibTorch"
    target = layer_of(include)
    if target and target not in TORCH_FREE and target != "apps" and include not in TORCH_FREE_HEADERS:
        return f"a torch-free file may not include {target}, which uses LibTorch"
    return None


def check_grpc(source, include, exists):
    if not GRPC_HEADER.search(include):
        return None
    if source.layer == "rpc":
        if not source.is_header or source.name.endswith("_reactor.h") or source.name in GRPC_HEADERS:
            return None
    return "gRPC and protobuf appear only in src/rpc/*.cpp and its *_reactor.h: our types cross that border, theirs do not"


def check_private_grpc_header(source, include, exists):
    if not (include.startswith("rpc/") and (include.endswith("_reactor.h") or include in GRPC_HEADERS)):
        return None
    if source.layer == "rpc" and (not source.is_header or source.name.endswith("_reactor.h") or source.name in GRPC_HEADERS):
        return None
    return "this header shows gRPC types; it is private to src/rpc/*.cpp"


def check_fat_torch(source, include, exists):
    if source.is_header and include in FAT_TORCH and source.name not in FAT_TORCH_ALLOWED_IN:
        return "too large for a header (13 s a file): use tensor/tensor_fwd.h, or a slim header such as ATen/core/Tensor.h"
    return None


RULES = [check_rank, check_exists, check_torch_free, check_grpc, check_private_grpc_header, check_fat_torch]


def read_sources(src: Path):
    root = src.parent
    for base, strip in ((src, src), (root / "apps", root)):
        for path in sorted(base.rglob("*")):
            if path.suffix in (".h", ".cpp", ".cu"):
                yield Source(path, path.relative_to(strip).as_posix())


def check_folders(src: Path):
    """Every folder of src/ has a rank and is a layer() of the build."""
    cmake = src.parent / "CMakeLists.txt"
    build = cmake.read_text(encoding="utf-8") if cmake.exists() else ""
    for folder in sorted(p for p in src.iterdir() if p.is_dir()):
        if folder.name not in RANKS:
            yield f"src/{folder.name}: has no rank; give it one in scripts/check_layers.py and docs/architecture.md"
        elif any(folder.iterdir()) and not re.search(rf"layer\({folder.name}\b", build):
            yield f"src/{folder.name}: CMakeLists.txt has no layer({folder.name} ...), so nothing builds it"


def check_tests_are_built(src: Path):
    """layer() takes src/FOLDER/*_test.cpp; tests/**/CMakeLists.txt names or globs the rest."""
    root = src.parent
    for path in sorted(src.rglob("*_test.cpp")):
        if len(path.relative_to(src).parts) != 2:
            yield f"{path.relative_to(root)}: no target builds this test; layer() takes src/FOLDER/*_test.cpp"
    for path in sorted((root / "apps").rglob("*_test.cpp")):
        yield f"{path.relative_to(root)}: no target builds this test; put it beside a file of src/ or in tests/"
    for path in sorted((root / "tests").rglob("*_test.cpp")):
        if not any(mentions(folder / "CMakeLists.txt", path) for folder in path.parents if folder.is_relative_to(root / "tests")):
            yield f"{path.relative_to(root)}: no target builds this test; no CMakeLists.txt of tests/ names it or has a glob for it"


def mentions(cmake: Path, test: Path):
    if not cmake.exists():
        return False
    without_comments = re.sub(r"#.*", "", cmake.read_text(encoding="utf-8"))
    name = test.relative_to(cmake.parent).as_posix()
    words = (word.strip('"').removeprefix("${CMAKE_CURRENT_SOURCE_DIR}/") for word in re.split(r"[\s()]+", without_comments))
    return any(word.endswith("_test.cpp") and fnmatch.fnmatchcase(name, word) for word in words)


def check(src: Path):
    """All violations, one line each."""
    violations = list(check_folders(src)) + list(check_tests_are_built(src))
    root = src.parent

    def exists(include):
        return (src / include).exists() or (root / include).exists()

    for source in read_sources(src):
        if source.layer not in RANKS:
            continue  # reported with its folder
        shown = source.name if source.layer == "apps" else f"src/{source.name}"
        for line, include in source.includes():
            for rule in RULES:
                problem = rule(source, include, exists)
                if problem:
                    violations.append(f'{shown}:{line}: #include "{include}": {problem}')
                    break
    return violations


def main(arguments):
    if len(arguments) > 1 or any(a.startswith("-") for a in arguments):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    src = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent / "src"
    if not src.is_dir():
        print(f"check_layers: {src} is not a folder", file=sys.stderr)
        return 2
    begin = time.monotonic()
    violations = check(src.resolve())
    for violation in violations:
        print(violation)
    if violations:
        print(f"check_layers: {len(violations)} violation(s) of the include rules (docs/architecture.md)")
        return 1
    print(f"check_layers: include rules hold ({time.monotonic() - begin:.2f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
