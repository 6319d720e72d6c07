"""scripts/size_report.py: quantiles, limits, exceptions."""
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import size_report  # noqa: E402


class SizeReport(unittest.TestCase):
    def test_quantiles_are_values_that_occur(self):
        self.assertEqual(size_report.quantile([1, 2, 3, 4], 0.5), 2)
        self.assertEqual(size_report.quantile(list(range(1, 11)), 0.9), 9)
        self.assertEqual(size_report.quantile([7], 0.9), 7)

    def test_counts_lines_by_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            for path, lines in (("src/plan/a.cpp", 3), ("src/plan/a.h", 1), ("apps/worker/main.cpp", 2), ("build/x.cpp", 9)):
                file = Path(folder) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("x\n" * lines, encoding="utf-8")
            lines = size_report.measure(Path(folder))
        self.assertEqual(lines, {"src/plan/a.cpp": 3, "src/plan/a.h": 1, "apps/worker/main.cpp": 2})
        table = [row.split() for row in size_report.table(lines)]
        self.assertIn(["src/plan", "2", "4", "1", "3", "3", "a.cpp"], table)
        self.assertIn(["all", "3", "6", "2", "3", "3", "a.cpp"], table)

    def test_a_file_over_its_limit_needs_a_reason(self):
        lines = {"src/a/x.cpp": 501, "src/a/y.cpp": 500, "src/a/x.h": 251, "src/a/y.h": 250}
        problems = list(size_report.over_limit(lines, {}))
        self.assertEqual([problem.split(":")[0] for problem in problems], ["src/a/x.cpp", "src/a/x.h"])
        self.assertEqual(list(size_report.over_limit(lines, {"src/a/x.cpp": "a table", "src/a/x.h": "a table"})), [])

    def test_an_exception_that_is_not_needed_is_named(self):
        problems = list(size_report.over_limit({"src/a/x.cpp": 10}, {"src/a/x.cpp": "was long", "src/a/gone.cpp": "was long"}))
        self.assertEqual(len(problems), 2)


if __name__ == "__main__":
    unittest.main()
