"""scripts/check_layers.py on small trees, one broken rule each."""
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))
import check_layers  # noqa: E402

# Every header that the cases include, so that only the rule in question can fail.
HEADERS = ["base/error.h", "config/a.h", "text/a.h", "plan/action.h", "cluster/a.h", "tensor/tensor_fwd.h", "comm/a.h", "model/a.h",
           "train/a.h", "engine/engine.h", "engine/loop.h", "frontend/a.h", "rpc/a.h", "rpc/stream_reactor.h", "apps/penstock/a.h"]


class CheckLayers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for header in HEADERS:
            self.write(header if header.startswith("apps/") else f"src/{header}", "#pragma once\n")
        layers = sorted({header.split("/")[0] for header in HEADERS} - {"apps"})
        self.write("CMakeLists.txt", "".join(f"layer({name} LIBS x)\n" for name in layers))

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def violations(self):
        return check_layers.check(self.root / "src")

    def include(self, path, *includes):
        """The violations of a tree with one more file, of these includes."""
        self.write(path, "".join(f'#include "{name}"\n' for name in includes))
        return self.violations()

    def assert_one(self, violations, *words):
        self.assertEqual(len(violations), 1, violations)
        for word in words:
            self.assertIn(word, violations[0])

    def test_a_tree_that_keeps_the_rules_is_fine(self):
        self.assertEqual(self.include("src/plan/a.cpp", "plan/action.h", "config/a.h", "base/error.h", "vector"), [])

    def test_a_higher_folder_is_refused_with_file_and_line(self):
        self.assert_one(self.include("src/plan/a.cpp", "vector", "frontend/a.h"), "src/plan/a.cpp:2", "plan (rank 2)", "frontend (rank 6)")

    def test_an_equal_folder_is_refused(self):
        self.assert_one(self.include("src/plan/a.cpp", "cluster/a.h"), "plan (rank 2)", "cluster (rank 2)")
        self.write("src/plan/a.cpp", "")
        self.assert_one(self.include("src/config/a.cpp", "text/a.h"), "config (rank 1)", "text (rank 2)")

    def test_angle_brackets_and_spaces_hide_nothing(self):
        self.write("src/plan/a.cpp", "  #  include <frontend/a.h>\n")
        self.assert_one(self.violations(), "frontend (rank 6)")

    def test_tests_keep_the_rules_too(self):
        self.assert_one(self.include("src/base/a_test.cpp", "plan/action.h"), "base (rank 0)")

    def test_a_torch_free_folder_includes_no_libtorch(self):
        for header in ("ATen/core/Tensor.h", "torch/all.h", "c10/util/Half.h"):
            self.assert_one(self.include("src/frontend/a.cpp", header), "may not include LibTorch")
            self.write("src/frontend/a.cpp", "")
            self.assert_one(self.include("apps/penstock/main.cpp", header), "may not include LibTorch")
            self.write("apps/penstock/main.cpp", "")

    def test_a_torch_free_folder_includes_no_folder_with_libtorch(self):
        self.assert_one(self.include("src/rpc/a.cpp", "engine/loop.h"), "may not include engine")

    def test_rpc_includes_the_engine_interface(self):
        self.assertEqual(self.include("src/rpc/a.cpp", "engine/engine.h"), [])

    def test_the_engine_interface_stays_torch_free(self):
        self.assert_one(self.include("src/engine/engine.h", "tensor/tensor_fwd.h"), "src/engine/engine.h:1", "may not include tensor")

    def test_the_worker_may_use_libtorch(self):
        self.assertEqual(self.include("apps/worker/main.cpp", "train/a.h", "engine/loop.h", "ATen/ATen.h"), [])

    def test_grpc_stays_in_the_sources_of_rpc(self):
        for header in ("grpcpp/grpcpp.h", "google/protobuf/message.h", "worker.grpc.pb.h", "worker.pb.h"):
            self.assertEqual(self.include("src/rpc/a.cpp", header), [])
            self.assertEqual(self.include("src/rpc/stream_reactor.h", header), [])
            self.assert_one(self.include("src/rpc/a.h", header), "src/rpc/a.h:1", "gRPC and protobuf")
            self.write("src/rpc/a.h", "")
            self.assert_one(self.include("src/frontend/a.cpp", header), "gRPC and protobuf")
            self.write("src/frontend/a.cpp", "")

    def test_a_header_with_grpc_types_is_private_to_the_sources_of_rpc(self):
        self.assertEqual(self.include("src/rpc/a.cpp", "rpc/stream_reactor.h"), [])
        self.assert_one(self.include("apps/penstock/main.cpp", "rpc/stream_reactor.h"), "private to src/rpc")
        self.write("apps/penstock/main.cpp", "")
        self.assert_one(self.include("src/rpc/a.h", "rpc/stream_reactor.h"), "private to src/rpc")

    def test_fat_libtorch_headers_stay_out_of_headers(self):
        for header in ("torch/torch.h", "torch/all.h", "ATen/ATen.h"):
            self.assertEqual(self.include("src/model/a.cpp", header), [])
            self.assertEqual(self.include("src/tensor/torch_pch.h", header), [])
            self.assert_one(self.include("src/model/a.h", header), "src/model/a.h:1", "too large for a header")
            self.write("src/model/a.h", "")
        self.assertEqual(self.include("src/model/a.h", "ATen/core/Tensor.h"), [])

    def test_a_file_that_is_not_there_is_named(self):
        self.assert_one(self.include("src/plan/a.cpp", "base/none.h"), "no such file")

    def test_a_new_folder_needs_a_rank(self):
        self.assert_one(self.include("src/extras/a.cpp", "vector"), "src/extras", "has no rank")

    def test_a_folder_that_the_build_leaves_out_is_named(self):
        self.write("src/kernels/a.cpp", "")
        self.assert_one(self.violations(), "no layer(kernels ...)")

    def test_a_test_that_no_target_builds_is_named(self):
        self.write("src/plan/deep/a_test.cpp", "")
        self.assert_one(self.violations(), "src/plan/deep/a_test.cpp", "no target builds this test")

    def test_a_test_in_tests_must_be_named_or_globbed(self):
        self.write("tests/process/crash_test.cpp", "")
        self.write("tests/CMakeLists.txt", "# file(GLOB x process/*_test.cpp)\n")
        self.assert_one(self.violations(), "tests/process/crash_test.cpp", "no target builds this test")
        self.write("tests/CMakeLists.txt", "file(GLOB x ${CMAKE_CURRENT_SOURCE_DIR}/process/*_test.cpp)\n")
        self.assertEqual(self.violations(), [])
        self.write("tests/CMakeLists.txt", "")
        self.write("tests/process/CMakeLists.txt", "add_executable(x crash_test.cpp)\n")
        self.assertEqual(self.violations(), [])


class ThisCheckout(unittest.TestCase):
    def test_keeps_the_rules(self):
        self.assertEqual(check_layers.check(ROOT / "src"), [])


if __name__ == "__main__":
    unittest.main()
