"""A server whose ports speak TLS, and the certificates of it and of its clients."""
import http.client
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile

import grpc

from http_case import HttpServerTest, Reply
from penstock_server import INFERENCE, wire


class Certificates:
    """A folder with an authority, a server and a client that it has signed, and a client of another authority."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-tls-"))
        for authority in ("ca", "other-ca"):
            self._openssl("req", "-x509", *self._key(authority), "-days", "2", "-subj", f"/CN={authority}", "-out", f"{authority}.pem")
        self._signed("server", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._signed("client", "ca", "extendedKeyUsage=clientAuth")
        self._signed("stranger", "other-ca", "extendedKeyUsage=clientAuth")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def _key(self, name):
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key"

    def _signed(self, name, authority, extension):
        (self.folder / "extension").write_text(extension)
        self._openssl("req", *self._key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2",
                      "-extfile", "extension", "-out", f"{name}.pem")

    def path(self, name):
        return str(self.folder / name)

    def read(self, name):
        return (self.folder / name).read_bytes()

    def context(self, client=None):
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        if client:
            context.load_cert_chain(self.path(client + ".pem"), self.path(client + ".key"))
        return context

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class TlsServerTest(HttpServerTest):
    """Base: a server whose four ports speak TLS."""

    more = ()

    @classmethod
    def setUpClass(cls):
        cls.certificates = made = Certificates()
        cls.addClassCleanup(made.close)
        settings = {"certificate_file": made.path("server.pem"), "private_key_file": made.path("server.key"), "enable_grpc_ssl": "true",
                    "inference_address": "https://127.0.0.1:0", "management_address": "https://127.0.0.1:0"}
        cls.arguments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        cls.arguments += [word.format(ca=made.path("ca.pem")) for word in cls.more]
        super().setUpClass()

    def host_port(self, address):
        host, port = address.removeprefix("https://").rsplit(":", 1)
        return host, int(port)

    def call(self, address, method, target, body=None, headers=(), client="client"):
        connection = http.client.HTTPSConnection(*self.host_port(address), timeout=60, context=self.certificates.context(client))
        try:
            connection.request(method, target, json.dumps(body) if isinstance(body, dict) else body, dict(headers))
            return self.checked(address, method, target, Reply(connection.getresponse()))
        finally:
            connection.close()

    def connect_plain(self):
        return socket.create_connection(self.host_port(self.server.http_address), timeout=20)

    def connect(self, address=None, context=None, client="client"):
        raw = socket.create_connection(self.host_port(address or self.server.http_address), timeout=20)
        return (context or self.certificates.context(client)).wrap_socket(raw, server_hostname="127.0.0.1")

    def channel(self, address, client=None):
        files = (self.certificates.read(client + ".key"), self.certificates.read(client + ".pem")) if client else (None, None)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.certificates.read("ca.pem"), *files),
                                   options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)])

    def ping(self, channel, metadata=()):
        call = channel.unary_unary(INFERENCE + "Ping", request_serializer=lambda m: m, response_deserializer=wire.TorchServeHealthResponse.FromString)
        try:
            return call(b"", timeout=20, metadata=metadata).health and grpc.StatusCode.OK
        except grpc.RpcError as failure:
            return failure.code()
