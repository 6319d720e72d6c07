"""What the tests of access keys share."""
import json

import grpc

from http_case import HttpServerTest

DENIED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
ON = ("--set", "disable_token_authorization=false")
NO_LIMIT = ("--set", "token_failure_limit=0")
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"


def bearer(key):
    return (("Authorization", "Bearer " + key),)


class TokenServerTest(HttpServerTest):
    """Base: a server that asks for keys."""

    arguments = (*ON, *NO_LIMIT)

    @property
    def keys(self):
        return json.loads((self.server.folder / "key_file.json").read_text())

    def key(self, name):
        return self.keys[name]["key"]

    def wrong_values(self, own):
        """Header values that must not open the door of `own`, by what is wrong with them."""
        good = self.key(own)
        wrong = {"empty": "", "no token": "Bearer", "only spaces": "Bearer   ", "wrong scheme": "Basic " + good, "no scheme": good,
                 "truncated": "Bearer " + good[:-1], "without its first letter": "Bearer " + good[1:], "one byte more": "Bearer " + good + "A",
                 "two words": "Bearer " + good + " " + good, "other case": "Bearer " + good.swapcase(), "huge": "Bearer " + "A" * 5000,
                 "quoted": 'Bearer "' + good + '"', "stale": "Bearer " + "A" * len(good)}
        wrong.update({f"the {name} key": "Bearer " + self.key(name) for name in ("management", "inference", "API") if name != own})
        return wrong

    def routes(self, address, own):
        """(method, path) of the table of routes, which the description is made of."""
        reply = self.call(address, "GET", "/api-description", headers=bearer(self.key(own)))
        self.assertEqual(reply.status, 200, reply.text)
        return [(method.upper(), path.replace("{model_name}", "tiny").replace("{model_version}", "1.0").replace("{workflow_name}", "w"))
                for path, operations in reply.json["paths"].items() for method in operations]

    def rpc(self, address, path, metadata=(), message=b""):
        """Status code and details of one call; which kind of call it is does not matter to who is refused."""
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_stream(path, request_serializer=lambda m: m, response_deserializer=lambda m: m)
            try:
                next(call(message, metadata=metadata, timeout=20), None)
                return grpc.StatusCode.OK, ""
            except grpc.RpcError as failure:
                return failure.code(), failure.details()
