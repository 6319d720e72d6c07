"""What streaming handlers of TorchServe import."""
import os

from ts import wire


def send_intermediate_predict_response(ret, req_id_map, message, code, context=None):
    if os.getenv("LOCAL_RANK", "0") != "0":
        return
    for index in req_id_map:
        context.set_response_header(index, "ts_stream_next", "true")
    context.connection.sendall(wire.response(code, message, req_id_map, ret, context))
