"""scripts/install-deps against stand-ins for dpkg-query, apt-get, sudo and id, so that nothing is installed."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "install-deps"
TOOLS = ["bash", "awk", "sort", "comm", "mktemp", "tail", "grep", "cat", "rm", "paste", "env"]

# Says "installed" for every package it is asked for but those in $ABSENT.
DPKG_QUERY = """#!/bin/bash
shift 3
for package; do [[ " $ABSENT " == *" $package "* ]] || echo "$package installed"; done
"""
APT_GET = """#!/bin/bash
echo "apt-get $*" >>"$CALLS"
[[ $* == *--simulate* ]] && { echo "Inst one"; echo "Inst two"; exit 0; }
[[ $1 == install ]] && { echo "Setting up ninja-build (1.11) ..."; exit "${APT_RESULT:-0}"; }
exit 0
"""


class InstallDeps(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bin = Path(folder.name)
        self.calls = self.bin / "calls"
        for tool in TOOLS:
            path = next(Path(p) / tool for p in ("/usr/bin", "/bin") if (Path(p) / tool).exists())
            (self.bin / tool).symlink_to(path)
        self.tool("dpkg-query", DPKG_QUERY)
        self.tool("apt-get", APT_GET)
        self.tool("id", "#!/bin/bash\necho 0\n")

    def tool(self, name, text):
        (self.bin / name).write_text(text, encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def run_script(self, *arguments, absent="", **environment):
        env = {"PATH": str(self.bin), "ABSENT": absent, "CALLS": str(self.calls), "TMPDIR": str(self.bin), **environment}
        return subprocess.run([str(self.bin / "bash"), str(SCRIPT), *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=30, check=False)

    def apt_calls(self):
        return self.calls.read_text(encoding="utf-8") if self.calls.exists() else ""

    def test_nothing_missing_says_so_and_calls_no_apt(self):
        result = self.run_script()
        self.assertEqual((result.returncode, result.stdout), (0, "install-deps: nothing is missing\n"))
        self.assertEqual(self.apt_calls(), "")

    def test_installs_only_what_is_missing(self):
        result = self.run_script(absent="ninja-build libtorch-dev")
        self.assertEqual(result.returncode, 0, result.stderr)
        install = [line for line in self.apt_calls().splitlines() if " -y " in line]
        self.assertEqual(len(install), 1)
        self.assertTrue(install[0].endswith(" libtorch-dev ninja-build"), install)
        self.assertIn("--no-install-recommends", install[0])
        self.assertIn("[  1/2] ninja-build", result.stdout)

    def test_check_installs_nothing_and_names_what_is_missing(self):
        result = self.run_script("--check", absent="ninja-build")
        self.assertEqual((result.returncode, result.stderr), (1, "install-deps: missing: ninja-build\n"))
        self.assertEqual(self.apt_calls(), "")

    def test_tools_of_developers_are_looked_for_only_when_asked(self):
        self.assertEqual(self.run_script("--check", absent="clang python3-torch").returncode, 0)
        self.assertIn("missing: clang\n", self.run_script("--check", "--dev", absent="clang python3-torch").stderr)
        self.assertIn("missing: python3-torch\n", self.run_script("--check", "--bench", absent="clang python3-torch").stderr)

    def test_without_root_and_sudo_it_says_what_to_do(self):
        self.tool("id", "#!/bin/bash\necho 1000\n")
        result = self.run_script(absent="ninja-build")
        self.assertEqual(result.returncode, 1)
        self.assertIn("needs root: run it as root, or install sudo. Missing: ninja-build", result.stderr)

    def test_sudo_is_used_and_asks_nobody_when_nobody_is_there(self):
        self.tool("id", "#!/bin/bash\necho 1000\n")
        self.tool("sudo", '#!/bin/bash\necho "sudo $1" >>"$CALLS"\nshift\nexec "$@"\n')
        self.assertEqual(self.run_script(absent="ninja-build").returncode, 0)
        self.assertIn("sudo -n", self.apt_calls())

    def test_a_failure_of_apt_is_a_failure(self):
        result = self.run_script(absent="ninja-build", APT_RESULT="100")
        self.assertEqual(result.returncode, 1)
        self.assertIn("apt-get failed", result.stderr)

    def test_on_another_system_it_lists_the_packages(self):
        (self.bin / "dpkg-query").unlink()
        result = self.run_script()
        self.assertEqual(result.returncode, 1)
        self.assertIn("this is not Debian", result.stderr)
        self.assertIn("libtorch-dev", result.stderr)

    def test_an_unknown_argument_is_refused(self):
        self.assertEqual(self.run_script("--dve").returncode, 2)


if __name__ == "__main__":
    unittest.main()
