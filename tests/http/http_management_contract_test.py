"""TorchServe's management contract over REST: the table of tests/grpc/management_contract.py."""
import unittest
import urllib.parse

from http_case import HttpServerTest
from management_contract import CONTRACT, check_description, make_folders
from penstock_server import FAKE_WORKER, make_model

METHODS = {"register": "POST", "scale": "PUT", "describe": "GET", "set_default": "PUT", "unregister": "DELETE", "list": "GET"}


def target_of(call, parameters):
    """The path and the query of a call."""
    query = {name: value for name, value in parameters.items() if call == "register" or name not in ("model_name", "model_version")}
    path = "/models"
    if call not in ("register", "list"):
        path += "".join("/" + parameters[name] for name in ("model_name", "model_version") if name in parameters)
    if call == "set_default":
        path += "/set-default"
    return path + ("?" + urllib.parse.urlencode(query) if query else "")


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class ManagementContractTest(HttpServerTest):
    store = (("placeholder", None),)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_folders(cls.server.folder / "store", make_model)

    def test_each_call_has_torchserves_status(self):
        for what, call, parameters, status, _, words in CONTRACT:
            if status is None:
                continue
            target = target_of(call, parameters)
            with self.subTest(what, target=target):
                reply = self.admin(METHODS[call], target)
                self.assertEqual(reply.status, status, reply.text)
                if call in ("describe", "list") and status == 200:
                    self.assertIn(words, reply.text)
                elif status < 400:
                    self.assertIn(words, reply.json["status"])
                else:
                    self.assertEqual(reply.json["code"], status)
                    self.assertTrue(reply.json["type"].endswith("Exception"), reply.text)
                    self.assertIn(words, reply.json["message"])

    def test_a_description_has_every_key(self):
        model = self.admin("GET", "/models/tiny").json[0]
        self.assertEqual(len(model["workers"]), 1)
        check_description(self, model)
