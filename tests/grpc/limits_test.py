"""What one client may hold of the server, and what a server that stops does with calls that wait."""
import http.client
import json
import socket
import struct
import threading
import unittest

import grpc

from penstock_server import FAKE_WORKER, Client, Server, ServerTest, request, wait_until, wire

HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # HTTP/2's preface and empty settings
MAX_CONCURRENT_STREAMS = 3


def connect(address):
    host, port = address.rsplit(":", 1)
    found = socket.create_connection((host, int(port)), timeout=10)
    found.sendall(HELLO)
    return found


def read_settings(connection):
    """The server's first frame; {} when it closes the connection instead."""
    data = b""
    while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
        piece = connection.recv(4096)
        if not piece:
            return {}
        data += piece
    length = int.from_bytes(data[:3], "big")
    assert data[3] == 4, data
    return dict(struct.unpack(">HI", data[at:at + 6]) for at in range(9, 9 + length, 6))


def is_closed(connection):
    """The server has said that it goes, or has gone."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
        return True
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


class ConnectionLimitTest(ServerTest):
    arguments = ("--set", "grpc_memory_mb=2")

    def test_a_connection_carries_a_bounded_number_of_calls(self):
        for address in (self.server.address, self.server.management_address):
            with connect(address) as connection:
                self.assertEqual(read_settings(connection)[MAX_CONCURRENT_STREAMS], 1024)

    def test_connections_beyond_the_memory_are_closed_and_their_end_makes_room(self):
        held = []
        try:
            for _ in range(900):
                held.append(connect(self.server.address))
                read_settings(held[-1])
            wait_until(lambda: any(is_closed(connection) for connection in held), 20, "a connection is closed")
        finally:
            for connection in held:
                connection.close()
        wait_until(self.answers, 20, "there is room again")

    def test_requests_beyond_the_memory_are_refused_and_leave_none_behind(self):
        found = []

        def ask():
            client = self.server.new_client()
            with self.assertRaises(grpc.RpcError) as raised:  # too long a prompt, if it is read at all
                client.predict(request(prompt="a " * 1_000_000, max_tokens=1), timeout=60)
            found.append(raised.exception.code())
            client.close()

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        Code = grpc.StatusCode
        self.assertEqual(len(found), 20)
        self.assertLessEqual(set(found), {Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE, Code.INVALID_ARGUMENT})
        self.assertIn(Code.RESOURCE_EXHAUSTED, found)
        wait_until(self.answers, 20, "there is room again")

    def answers(self):
        client = self.server.new_client()
        try:
            return bool(client.stream_text(request(prompt="a b", max_tokens=2)))
        except grpc.RpcError:
            return False
        finally:
            client.close()


@unittest.skipUnless(FAKE_WORKER, "needs workers that load for ever")
class StopTest(unittest.TestCase):
    def test_management_calls_that_wait_are_told_that_the_server_stops(self):
        server = Server(models=(), store=(("one", None),), environment={"FAKE_WORKER_LOAD": "hang"}.items())
        self.addCleanup(server.close)
        manager = Client(server.management_address)
        self.addCleanup(manager.close)
        answers = {}

        def call(name, method, message):
            try:
                answers[name] = (0, manager.manage(method, message))
            except grpc.RpcError as failure:
                answers[name] = (failure.code(), failure.details())

        def call_http(name):
            connection = http.client.HTTPConnection(server.http_management_address, timeout=60)
            connection.request("GET", "/models")
            response = connection.getresponse()
            answers[name] = (response.status, json.loads(response.read())["message"])

        threads = [threading.Thread(target=call, args=(f"load {i}", "RegisterModel", wire.RegisterModelRequest(
            url="one", model_name=f"m{i}", initial_workers=1, synchronous=True))) for i in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(server.worker_pids()) >= 16, 30, "all threads of the pool load a model")
        threads += [threading.Thread(target=call, args=("list", "ListModels", wire.ListModelsRequest(limit=1))),
                    threading.Thread(target=call_http, args=("list over HTTP",))]
        for thread in threads[8:]:
            thread.start()
        threads[8].join(timeout=1)
        self.assertEqual(answers, {}, "they wait")
        server.terminate()
        for thread in threads:
            thread.join(timeout=60)
        self.assertEqual(answers["list"], (grpc.StatusCode.UNAVAILABLE, "the server is shutting down; nothing was done"))
        self.assertEqual(answers["list over HTTP"], (503, "the server is shutting down; nothing was done"))
        self.assertEqual(server.wait_ended(), 0)
