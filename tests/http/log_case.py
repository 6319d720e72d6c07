"""What the tests of log files share."""
import pathlib
import re
import tempfile

from http_case import HttpServerTest
from penstock_server import wait_until


class LogServerTest(HttpServerTest):
    """Base: a server whose log files lie in a folder of the class."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="penstock-logs-")
        cls.addClassCleanup(folder.cleanup)
        cls.logs = pathlib.Path(folder.name) / "logs"
        cls.prepare()
        cls.environment = {"LOG_LOCATION": str(cls.logs), "METRICS_LOCATION": str(cls.logs / "metrics")}
        super().setUpClass()

    @classmethod
    def prepare(cls):
        pass

    def lines(self, name):
        file = self.logs / name
        return file.read_text().splitlines() if file.exists() else []

    def line_of(self, name, pattern):
        """The first line that has the pattern, as soon as it is there."""
        found = []
        wait_until(lambda: found.extend(line for line in self.lines(name) if re.search(pattern, line)) or found,
                   what=f"a line of {name} with {pattern}")
        return found[0]
