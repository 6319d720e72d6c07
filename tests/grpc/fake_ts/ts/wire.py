"""The worker's side of the socket protocol."""
import json
import os
import struct


class Ended(Exception):
    pass


def read(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise Ended()
        data += piece
    return data


def number(connection):
    return struct.unpack("!i", read(connection, 4))[0]


def text(connection):
    return read(connection, number(connection))


def read_load(connection):
    load = {"model": text(connection).decode(), "folder": text(connection).decode(), "batch_size": number(connection),
            "handler": text(connection).decode(), "gpu": number(connection), "envelope": text(connection).decode()}
    load["limit_max_image_pixels"] = struct.unpack("!?", read(connection, 1))[0]
    return load


def listed(connection, fields):
    """Tuples of so many texts, until -1."""
    while True:
        size = number(connection)
        if size == -1:
            return
        yield (read(connection, size), *(text(connection) for _ in range(fields - 1)))


def decoded(kind, value):
    """A body as the handler gets it. Names, types and headers that are not UTF-8 are the worker's end; bodies are not."""
    if os.environ.get("TS_DECODE_INPUT_REQUEST", "true") != "true":
        return value
    try:
        if kind == "application/json":
            return json.loads(value.decode())
        return value.decode() if kind.startswith("text") else value
    except ValueError:
        return value


def read_batch(connection):
    batch = []
    while True:
        size = number(connection)
        if size == -1:
            return batch
        request = read(connection, size).decode()
        headers = {k.decode(): v.decode() for k, v in listed(connection, 2)}
        parts = {}
        for name, kind, value in list(listed(connection, 3)):
            parts[name.decode()] = decoded(kind.decode(), value)
        batch.append((request, headers, parts))


def sized(value):
    value = value if isinstance(value, (bytes, bytearray)) else value.encode()
    return struct.pack("!i", len(value)) + value


def body(value):
    return sized(value if isinstance(value, (bytes, bytearray, str)) else json.dumps(value, indent=2))


def response(code, message, ids, values, context):
    out = struct.pack("!i", code) + sized(message)
    for index, request in (ids.items() if values is not None else ()):
        headers = context.headers[index]
        out += sized(request) + sized(headers.get("content-type", "")) + struct.pack("!i", context.statuses[index]) + sized("")
        out += struct.pack("!i", len(headers))
        for key, value in headers.items():
            out += sized(key) + sized(value)
        out += body(values[index])
    return out + struct.pack("!i", -1)
