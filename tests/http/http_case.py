"""What the tests of this folder share: one server for a class, and its HTTP clients."""
import http.client
import json
import socket

import openai_schemas
from penstock_server import ManagementServerTest


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def call_http(address, method, target, body=None, headers=()):
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, target, json.dumps(body) if isinstance(body, dict) else body, dict(headers))
        return Reply(connection.getresponse())
    finally:
        connection.close()


class HttpServerTest(ManagementServerTest):
    """Base: a server, and answers of its listeners; those of OpenAI's API are checked by their schemas."""

    models = ("tiny",)

    def call(self, address, method, target, body=None, headers=()):
        return self.checked(address, method, target, call_http(address, method, target, body, headers))

    def checked(self, address, method, target, reply):
        if address != self.server.http_management_address:
            openai_schemas.check_reply(method, target, reply)
        return reply

    def infer(self, method, target, body=None, headers=()):
        return self.call(self.server.http_address, method, target, body, headers)

    def admin(self, method, target, body=None, headers=()):
        return self.call(self.server.http_management_address, method, target, body, headers)

    def metrics(self, query=""):
        return self.call(self.server.metrics_address, "GET", "/metrics" + query)

    def samples(self, query=""):
        """{"Name{labels}": value}; what is neither a sample nor a comment fails."""
        found = {}
        for line in self.metrics(query).text.splitlines():
            if line.startswith("# "):
                self.assertRegex(line, r"^# (HELP [\w:]+ .|TYPE [\w:]+ (counter|gauge|histogram)$)")
                continue
            self.assertRegex(line, r'^[\w:]+(\{(\w+="[^"]*",)+\})? [0-9.e+-]+$')
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
        return found

    def connect(self, address=None):
        host, port = (address or self.server.http_address).rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=20)

    def send_raw(self, data, address=None):
        """All that the server sends until it closes the connection, or until it has sent one whole answer."""
        with self.connect(address) as raw:
            raw.sendall(data)
            response = http.client.HTTPResponse(raw)
            response.begin()
            reply = Reply(response)
        line = data.split(b"\r\n")[0].decode("latin-1").split(" ")
        return self.checked(address, line[0], line[1], reply) if len(line) == 3 else reply

    def assert_error(self, reply, status, kind, *words):
        self.assertEqual((reply.status, reply.json["code"], reply.json["type"]), (status, status, kind), reply.text)
        for word in words:
            self.assertIn(word, reply.json["message"])
        self.assertEqual(reply.headers["Connection"], "close")
