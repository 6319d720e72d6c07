"""Archives of the model store: .mar, .zip and .tar.gz are served as folders are; hostile ones are refused by name and leave nothing behind."""
import io
import json
import os
import pathlib
import tarfile
import tempfile
import unittest
import zipfile

from http_case import HttpServerTest
from penstock_server import FAKE_WORKER, Server

CONFIG = "minWorkers: 1\ndeviceType: cpu\nstartupTimeout: 60\n"


def manifest(name, version="1.0", **fields):
    return json.dumps({"runtime": "python", "model": {"modelName": name, "modelVersion": version, "configFile": "model-config.yaml", **fields}})


def model_files(name, version="1.0"):
    return {"config.json": "{}", "model-config.yaml": CONFIG, "MAR-INF/MANIFEST.json": manifest(name, version)}


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)


def write_tar(path, files, prefix=""):
    with tarfile.open(path, "w:gz") as out:
        for name, content in files.items():
            header = tarfile.TarInfo(prefix + name)
            header.size = len(content)
            out.addfile(header, io.BytesIO(content.encode()))


def private_folders(temporary):
    """What is unpacked now."""
    return [entry for folder in pathlib.Path(temporary).glob("penstock.*") for entry in folder.iterdir() if entry.is_dir() and
            any(entry.rglob("MANIFEST.json"))]


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class ArchivesTest(HttpServerTest):
    store = (("placeholder", None),)
    temporary = tempfile.TemporaryDirectory()
    environment = {"TMPDIR": temporary.name}.items()

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.temporary.cleanup)
        super().setUpClass()
        cls.folder = cls.server.folder / "store"

    def register(self, url, **parameters):
        query = "&".join(f"{name}={value}" for name, value in {"url": url, **parameters}.items())
        return self.admin("POST", "/models?" + query)

    def test_every_format_serves(self):
        write_zip(self.folder / "zipped.mar", model_files("from-mar"))
        write_zip(self.folder / "plain.zip", model_files("from-zip", "3"))
        write_tar(self.folder / "packed.tar.gz", model_files("from-tar"))
        write_tar(self.folder / "inner.tgz", model_files("from-tgz"), "some-folder/")
        for url, name in (("zipped.mar", "from-mar"), ("plain.zip", "from-zip"), ("packed.tar.gz", "from-tar"), ("inner.tgz", "from-tgz")):
            with self.subTest(url):
                reply = self.register(url, initial_workers=1)
                self.assertEqual(reply.status, 200, reply.text)
                self.assertIn(f'Model "{name}" Version: ', reply.json["status"])
                self.assertEqual(self.infer("POST", f"/predictions/{name}", {"prompt": "a", "max_tokens": 2}).status, 200)
                self.assertEqual(self.admin("GET", f"/models/{name}").json[0]["modelUrl"], url)
                self.assertEqual(self.admin("DELETE", f"/models/{name}").status, 200)
        self.assertTrue((self.folder / "zipped.mar").exists(), "what was not fetched stays")

    def test_two_models_of_one_archive_share_its_folder(self):
        write_zip(self.folder / "shared.mar", model_files("shared"))
        self.assertEqual(self.register("shared.mar", model_name="s1", initial_workers=0).status, 200)
        unpacked = private_folders(self.temporary.name)
        self.assertEqual(self.register("shared.mar", model_name="s2", initial_workers=0).status, 200)
        self.assertLessEqual(set(private_folders(self.temporary.name)), set(unpacked))
        for name in ("s1", "s2"):
            self.admin("DELETE", f"/models/{name}")

    def test_hostile_archives_are_refused_and_leave_nothing(self):
        good = model_files("h")
        write_zip(self.folder / "climbs.mar", {**good, "../../climbed": "x"})
        write_tar(self.folder / "absolute.tar.gz", {**good, "/tmp/penstock-test-absolute": "x"})
        with tarfile.open(self.folder / "links.tar.gz", "w:gz") as out:
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            out.addfile(link)
        write_zip(self.folder / "bomb.mar", {**good, "zeros": bytes(200 << 20)})
        write_zip(self.folder / "whole.mar", {**good, "noise": os.urandom(9000)})
        whole = (self.folder / "whole.mar").read_bytes()
        (self.folder / "cut.mar").write_bytes(whole[:-40])
        (self.folder / "text.mar").write_text("not an archive\n")
        write_zip(self.folder / "empty.mar", {"readme.txt": "no model"})
        write_zip(self.folder / "manifest.mar", {**good, "MAR-INF/MANIFEST.json": "[" * 20000})
        write_zip(self.folder / "yaml.mar", {**good, "model-config.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"})
        before = private_folders(self.temporary.name)
        for url, words in (("climbs.mar", "'../../climbed': '..' is not allowed"), ("absolute.tar.gz", "absolute names"),
                           ("links.tar.gz", "entry 'link': links are not allowed"), ("bomb.mar", "entry 'zeros': the archive unpacks to more than"),
                           ("cut.mar", "expected a whole zip or tar.gz file"), ("text.mar", "expected a whole zip or tar.gz file"),
                           ("empty.mar", "there is no model in it"), ("manifest.mar", "MANIFEST.json: nested deeper than 16"),
                           ("yaml.mar", "model-config.yaml:1: anchors (&name) are not supported")):
            with self.subTest(url):
                self.assert_error(self.register(url, model_name="h"), 400, "BadRequestException", words)
        self.assertEqual(private_folders(self.temporary.name), before)
        self.assertFalse(pathlib.Path("/tmp/penstock-test-absolute").exists())
        self.assertEqual(list(pathlib.Path(self.temporary.name).rglob("climbed")), [])


@unittest.skipUnless(FAKE_WORKER, "a worker without a model loads faster; the rest of the path is the same")
class ArchivesAtStartTest(unittest.TestCase):
    def test_archives_are_loaded_at_start(self):
        with tempfile.TemporaryDirectory() as folder:
            write_zip(f"{folder}/one.mar", model_files("named-by-manifest"))
            write_tar(f"{folder}/two.tar.gz", model_files("two"))
            for models, names in ((("all",), ["named-by-manifest", "two"]), (("mine=one.mar", "two"), ["mine", "two"])):
                with self.subTest(models):
                    server = Server(models=(), arguments=("--model-store", folder, "--models", *models))
                    self.addCleanup(server.close)
                    for name in names:
                        self.assertEqual(server.client.health(name), 1, name)
                    server.close()

    def test_an_archive_needs_no_store(self):
        with tempfile.TemporaryDirectory() as folder:
            write_zip(f"{folder}/one.mar", model_files("one"))
            server = Server(models=(), arguments=("--models", f"mine={folder}/one.mar"))
            self.addCleanup(server.close)
            self.assertEqual(server.client.health("mine"), 1)
