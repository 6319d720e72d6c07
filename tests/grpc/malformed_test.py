"""Bytes that are no message, to every method of every service."""
import random

import grpc

from penstock_server import INFERENCE, MANAGEMENT, ManagementServerTest, request, wire

HEALTH = "/grpc.health.v1.Health/"
METHODS = [("address", INFERENCE + name) for name in ("Ping", "Predictions", "StreamPredictions")]
METHODS += [("management_address", MANAGEMENT + name)
            for name in ("DescribeModel", "ListModels", "RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel")]
METHODS += [("address", f"/{package}.GRPCInferenceService/{name}") for package in ("org.pytorch.serve.grpc.openinference", "inference")
            for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")]
METHODS += [(port, HEALTH + "Check") for port in ("address", "management_address")]
# What such a stream reads last looks to them like its end: gRPC does not tell a broken message from none.
STREAMS = [(port, f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
           for port in ("address", "management_address") for version in ("v1", "v1alpha")]
STREAMS.append(("address", INFERENCE + "StreamPredictions2"))

# None of these is a message of any type.
BROKEN = {
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x07x",
    "a length of 2^64": b"\x0a" + b"\xff" * 9 + b"\x01",
    "a number without end": b"\x08" + b"\xff" * 20,
    "field number 0": b"\x00\x01",
    "a group that never ends": b"\x0b" * 50,
    "groups 20,000 deep": b"\xfb\x07" * 20000,
    "the end of a group that never began": b"\x0c",
    "an unknown wire type": b"\x0e\x0f",
    "only a tag": b"\x0a",
}


class MalformedMessageTest(ManagementServerTest):
    models = ("tiny",)

    def tearDown(self):
        self.assertTrue(self.client.stream_text(request(prompt="still there?", max_tokens=3)), "the server must survive")
        self.assertIn("tiny", self.manage("ListModels", wire.ListModelsRequest(limit=10)))

    def call(self, port, path, data):
        channel = (self.client if port == "address" else self.manager).channel
        call = channel.stream_stream(path, request_serializer=lambda m: m, response_deserializer=lambda m: m)
        try:
            list(call(iter([data]), timeout=20))
            return grpc.StatusCode.OK
        except grpc.RpcError as failure:
            return failure.code()

    def test_what_no_message_can_be_is_refused(self):
        for port, path in METHODS:
            for what, data in BROKEN.items():
                with self.subTest(path=path, bytes=what):
                    self.assertNotIn(self.call(port, path, data), (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))

    def test_streams_of_requests_are_ended(self):
        for port, path in STREAMS:
            for what, data in BROKEN.items():
                with self.subTest(path=path, bytes=what):
                    self.assertNotIn(self.call(port, path, data), (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))

    def test_damaged_messages_are_answered(self):
        chance = random.Random(5)
        good = wire.RegisterModelRequest(url="u" * 50, model_name="m", initial_workers=-5, handler="h" * 30).SerializeToString()
        good += request(prompt="a", max_tokens=1).SerializeToString()
        for port, path in METHODS + STREAMS:
            for _ in range(20):
                data = bytearray(good[:chance.randrange(1, len(good))])
                for _ in range(chance.randrange(1, 6)):
                    data[chance.randrange(len(data))] = chance.randrange(256)
                with self.subTest(path=path, data=bytes(data)):
                    self.assertNotIn(self.call(port, path, bytes(data)), (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE))
