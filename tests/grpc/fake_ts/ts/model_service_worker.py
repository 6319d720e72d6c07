"""Listens, loads the handler that LOAD names, and calls its handle(data, context) for each batch.

As TorchServe's worker, rank r listens on the socket whose name ends in its number, and only rank 0 answers predictions. With
FAKE_TS_ALL_ANSWER=1 every rank does, as earlier versions of it did.
"""
import argparse
import importlib
import os
import socket
import sys
import traceback

from ts import wire

LOCAL_RANK = int(os.getenv("LOCAL_RANK", "0"))
ANSWERS = LOCAL_RANK == 0 or os.getenv("FAKE_TS_ALL_ANSWER") == "1"


class Context:
    def __init__(self, load, connection, batch):
        self.system_properties = {"model_dir": load["folder"], "gpu_id": load["gpu"], "batch_size": load["batch_size"],
                                  "envelope": load["envelope"], "limit_max_image_pixels": load["limit_max_image_pixels"]}
        self.connection = connection
        self.request_ids = {i: request for i, (request, _, _) in enumerate(batch)}
        self.request_headers = [headers for _, headers, _ in batch]
        self.headers = [{} for _ in batch]
        self.statuses = [200 for _ in batch]

    def get_request_header(self, index, key):
        return next((v for k, v in self.request_headers[index].items() if k.lower() == key.lower()), None)

    def set_response_header(self, index, key, value):
        self.headers[index][key] = value

    def set_response_content_type(self, index, value):
        self.set_response_header(index, "content-type", value)

    def set_response_status(self, code=200, idx=0, **_):
        self.statuses[idx] = code


def load_handler(load):
    module, _, function = load["handler"].partition(":")
    return getattr(importlib.import_module(module.removesuffix(".py")), function or "handle")


def serve_batch(connection, load, handle):
    batch = wire.read_batch(connection)
    context = Context(load, connection, batch)
    try:
        values, code, message = handle([parts for _, _, parts in batch], context), 200, "Prediction success"
        if len(values) != len(batch):
            values, code, message = None, 503, "number of batch response mismatched"
    except Exception:
        traceback.print_exc()
        values, code, message = None, 503, "Prediction failed"
    for headers in context.headers:
        if headers.get("ts_stream_next") == "true":
            headers["ts_stream_next"] = "false"
    if ANSWERS:
        connection.sendall(wire.response(code, message, context.request_ids, values, context))


def main():
    parser = argparse.ArgumentParser()
    for name in ("--sock-type", "--sock-name", "--metrics-config"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    assert arguments.sock_type == "unix" and os.path.exists(arguments.metrics_config)
    listener = socket.socket(socket.AF_UNIX)
    name, number = arguments.sock_name.rsplit(".", 1)
    listener.bind(f"{name}.{int(number) + LOCAL_RANK}")
    listener.listen(1)
    print("Torch worker started.", flush=True)
    connection, _ = listener.accept()
    load, handle = None, None
    while True:
        try:
            command = wire.read(connection, 1)
        except wire.Ended:
            return
        if command == b"L":
            load = wire.read_load(connection)
            try:
                handle = load_handler(load)
                connection.sendall(wire.response(200, "loaded model " + load["model"], {}, None, None))
            except Exception as failure:
                connection.sendall(wire.response(500, repr(failure), {}, None, None))
        elif command == b"I":
            serve_batch(connection, load, handle)
        else:
            sys.exit(f"unknown command {command}")


if __name__ == "__main__":
    main()
