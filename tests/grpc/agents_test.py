"""Worker groups on several machines: the front door's, and those of `penstock agent`, which here are processes of this machine."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

import grpc

from penstock_server import BIN, FAKE_WORKER, FREE_PORTS, Client, Server, make_model, request, run_penstock, wait_until, wire

TWO_HOSTS = "torchrun:\n  nnodes: 2\n"


def variables_of(pid):
    content = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in content.split("\0") if "=" in entry)


def children_of(pid):
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return found


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@unittest.skipUnless(FAKE_WORKER, "needs workers that do not compute")
class AgentCase:
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-agents-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.token = self.folder / "token"
        self.token.write_text("0123456789abcdef" * 2 + "\n")
        self.token.chmod(0o600)
        self.agents = []
        self.addCleanup(self.end_agents)

    def serve(self, config=TWO_HOSTS, stages=1, arguments=(), devices=0, **options):
        """A front door with a port for agents."""
        server = Server(config=config, stages=stages, wait=False, device="gpu" if devices else "cpu",
                        environment={"PENSTOCK_TEST_DEVICES": str(devices)}.items(),
                        arguments=("--set", f"agent_address=127.0.0.1:{self.port()}", "--set", f"agent_token_file={self.token}", *arguments), **options)
        self.addCleanup(server.close)
        self.server = server
        return server

    def port(self):
        """A free port, the same every time."""
        if not hasattr(self, "chosen"):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.chosen = probe.getsockname()[1]
        return self.chosen

    def agent(self, name="b", devices=0, token=None):
        log = open(self.folder / f"{name}.log", "a")
        process = subprocess.Popen(
            [BIN / "penstock", "agent", "--front-door", f"127.0.0.1:{self.port()}", "--token-file", token or self.token, "--name", name, "--log-dir", self.folder / name],
            stdout=log, stderr=log, cwd=self.folder, env=dict(os.environ, PENSTOCK_WORKER=FAKE_WORKER, PENSTOCK_TEST_DEVICES=str(devices)))
        log.close()
        self.agents.append(process)
        return process

    def said(self, name="b"):
        return (self.folder / f"{name}.log").read_text()

    def end_agents(self):
        for process in self.agents:
            if process.poll() is None:
                process.kill()
            process.wait()

    def answers(self):
        return self.server.client.stream_text(request(prompt="a b", max_tokens=2), timeout=20)

    def health(self):
        return self.server.client.health("tiny")


class TwoMachinesTest(AgentCase, unittest.TestCase):
    def test_a_group_has_ranks_on_both_machines(self):
        server = self.serve(stages=2)
        agent = self.agent()
        server.wait_started()
        self.assertEqual(self.answers(), ["a ", "b "])
        self.assertRegex(server.stdout, r"agents\s+127.0.0.1:\d+  \(1 joined\)")
        self.assertEqual(sorted(server.worker_pids().values()), [0, 1])
        there = [variables_of(pid) for pid in children_of(agent.pid)]
        self.assertEqual(sorted(v["RANK"] for v in there), ["2", "3"])
        here = variables_of(server.ranks()[0])
        for variables in there:
            self.assertEqual({v: variables[v] for v in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PENSTOCK_JOB_ID")},
                             {v: here[v] for v in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PENSTOCK_JOB_ID")})
            self.assertEqual(variables["WORLD_SIZE"], "4")
        self.assertIn("worker group 0 waits for machines: expected 1 other machine(s), found 0 of them: no agent is connected", server.stderr)

    def test_each_machine_gives_its_own_devices(self):
        server = self.serve(stages=2, devices=4)
        agent = self.agent(devices=6)
        server.wait_started()
        manager = Client(server.management_address)
        self.addCleanup(manager.close)
        manager.manage("ScaleWorker", wire.ScaleWorkerRequest(model_name="tiny", min_worker=2, synchronous=True))
        self.assertEqual(sorted({variables_of(pid)["CUDA_VISIBLE_DEVICES"] for pid in server.worker_pids()}), ["0,1", "2,3"])
        self.assertEqual(sorted({variables_of(pid)["CUDA_VISIBLE_DEVICES"] for pid in children_of(agent.pid)}), ["0,1", "2,3"])

    def test_too_few_machines_are_an_error_that_says_what_is_missing(self):
        self.agent(devices=2)
        model = make_model(self.folder / "far", TWO_HOSTS, stages=4, device="gpu")
        config = model / "model-config.yaml"
        config.write_text(config.read_text().replace("startupTimeout: 60", "startupTimeout: 4"))
        code, _, stderr = run_penstock("serve", "--models", f"far={model}", "--port", 0, *FREE_PORTS, "--set", f"agent_address=127.0.0.1:{self.port()}",
                                       "--set", f"agent_token_file={self.token}", cwd=self.folder,
                                       environment={"PENSTOCK_WORKER": FAKE_WORKER, "PENSTOCK_TEST_DEVICES": "4"}.items())
        self.assertNotEqual(code, 0)
        self.assertIn("expected 1 other machine(s) with 4 free GPU(s) each, found 0 of them (agents: 'b' with 2 free of 2)", stderr.splitlines()[-1])

    def test_the_front_door_that_is_killed_takes_the_ranks_of_the_other_machine_with_it(self):
        server = self.serve()
        agent = self.agent()
        server.wait_started()
        ranks = children_of(agent.pid)
        self.assertEqual(len(ranks), 1)
        server.process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in ranks), 5, "the ranks of the agent end")
        self.assertIsNone(agent.poll(), "the agent waits for a front door")

    def test_an_agent_serves_the_next_front_door(self):
        self.serve().process.kill()
        agent = self.agent()
        second = self.serve()
        second.wait_started()
        self.assertEqual(self.answers(), ["a ", "b "])
        self.assertEqual(len(children_of(agent.pid)), 1)

    def test_stopping_the_server_ends_the_ranks_there_and_not_the_agent(self):
        server = self.serve()
        agent = self.agent()
        server.wait_started()
        server.terminate()
        self.assertEqual(server.wait_ended(), 0)
        wait_until(lambda: not children_of(agent.pid), 5, "the ranks have ended")
        agent.send_signal(signal.SIGTERM)
        self.assertEqual(agent.wait(10), 0)


class LostMachineTest(AgentCase, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.serve(config=TWO_HOSTS + "responseTimeout: 20\n")
        self.first = self.agent()
        self.server.wait_started()

    def fails(self, *words):
        with self.assertRaises(grpc.RpcError) as raised:
            list(self.running)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
        for word in words:
            self.assertIn(word, raised.exception.details())

    def begin(self):
        self.running = self.server.client.stream(request(prompt="a b", max_tokens=3000), timeout=60)
        next(self.running)

    def test_an_agent_that_is_killed_is_named_and_the_group_starts_again_when_it_returns(self):
        self.begin()
        self.first.kill()
        self.fails("rank 1 of worker group 0 is lost with machine 'b'", "it is being started again")
        wait_until(lambda: "start `penstock agent` on 1 more" in self.server.stderr, 10, "the log says what is missing")
        self.agent()
        wait_until(lambda: self.health() == 1, 20, "the group serves again")
        self.assertEqual(self.answers(), ["a ", "b "])

    def test_the_group_goes_on_with_another_machine(self):
        other = self.agent("c")
        wait_until(lambda: "joined the front door" in self.said("c"), what="the other machine has joined")
        self.first.kill()
        wait_until(lambda: len(children_of(other.pid)) == 1, 15, "its rank runs on the other machine")
        wait_until(lambda: self.health() == 1, 15, "the group serves again")
        self.assertEqual(self.answers(), ["a ", "b "])

    def test_an_agent_that_stands_still_is_as_good_as_lost(self):
        self.begin()
        self.first.send_signal(signal.SIGSTOP)
        self.addCleanup(lambda: self.first.send_signal(signal.SIGCONT))
        self.fails("is lost with machine 'b'")

    def test_a_rank_that_dies_there_is_named_with_its_machine_and_started_again(self):
        self.begin()
        rank = children_of(self.first.pid)[0]
        os.kill(rank, signal.SIGKILL)
        self.fails("rank 1 of worker group 0 was killed by signal 9 (SIGKILL) on machine 'b'")
        wait_until(lambda: self.health() == 1, 15, "the group serves again")
        self.assertNotEqual(children_of(self.first.pid), [rank])
        self.assertEqual(self.answers(), ["a ", "b "])


class AgentsAreCheckedTest(AgentCase, unittest.TestCase):
    def test_a_wrong_token_is_refused_and_ends_the_agent(self):
        server = self.serve(config="")
        server.wait_started()
        wrong = self.folder / "wrong"
        wrong.write_text("f" * 32)
        wrong.chmod(0o600)
        agent = self.agent(token=wrong)
        self.assertNotEqual(agent.wait(20), 0)
        self.assertIn("refuses this agent: the token is wrong, or there is none", self.said())
        self.assertNotIn("f" * 32, self.said() + server.stderr)

    def test_two_agents_of_one_name_are_one(self):
        server = self.serve(config="")
        server.wait_started()
        self.agent()
        wait_until(lambda: "joined the front door" in self.said(), what="the first has joined")
        second = self.folder / "b.log"
        before = len(second.read_text())
        self.agent()
        wait_until(lambda: "an agent named 'b' has joined already" in second.read_text()[before:], what="the second is told")

    def test_an_agent_needs_a_secret(self):
        code, _, stderr = run_penstock("agent", "--front-door", "10.0.0.1:7072", "--no-token", environment={"PENSTOCK_WORKER": FAKE_WORKER}.items())
        self.assertEqual(code, 2)
        self.assertIn("give the token that both share with --token-file", stderr)
        self.token.chmod(0o644)
        code, _, stderr = run_penstock("agent", "--front-door", "127.0.0.1:7072", "--token-file", self.token, environment={"PENSTOCK_WORKER": FAKE_WORKER}.items())
        self.assertEqual(code, 2)
        self.assertIn("others than its owner may use it", stderr)

    def test_on_this_machine_both_may_be_told_to_do_without(self):
        server = Server(config=TWO_HOSTS, stages=1, wait=False,
                        arguments=("--set", f"agent_address=127.0.0.1:{self.port()}", "--set", "agent_without_token=true"))
        self.addCleanup(server.close)
        with open(self.folder / "open.log", "w") as log:
            self.agents.append(subprocess.Popen([BIN / "penstock", "agent", "--front-door", f"127.0.0.1:{self.port()}", "--no-token", "--name", "open"],
                                                stdout=log, stderr=log, cwd=self.folder, env=dict(os.environ, PENSTOCK_WORKER=FAKE_WORKER)))
        server.wait_started()
        self.assertIn("joined the front door", self.said("open"))

    def test_a_front_door_without_a_secret_has_no_port_for_agents(self):
        model = make_model(self.folder / "tiny")
        for address, more in (("127.0.0.1:0", ()), ("0.0.0.0:0", ("--set", "agent_without_token=true"))):
            code, _, stderr = run_penstock("serve", "--models", f"tiny={model}", "--set", f"agent_address={address}", *more,
                                           environment={"PENSTOCK_WORKER": FAKE_WORKER}.items())
            self.assertEqual(code, 2)
            self.assertIn("agents must prove who they are", stderr)

    def test_without_a_port_for_agents_a_model_on_two_machines_is_refused(self):
        model = make_model(self.folder / "far", TWO_HOSTS)
        code, _, stderr = run_penstock("serve", "--models", f"far={model}", environment={"PENSTOCK_WORKER": FAKE_WORKER}.items())
        self.assertNotEqual(code, 0)
        self.assertIn("torchrun.nnodes 2: no other machine can join this front door", stderr)

    def test_a_model_that_is_not_there_on_the_other_machine_is_told_of_it(self):
        """The same machine, so the folder goes away between the two starts."""
        server = self.serve()
        self.agent()
        server.wait_started()
        folder = server.folder / "store" / "tiny"
        folder.rename(folder.with_name("elsewhere"))
        os.kill(children_of(self.agents[0].pid)[0], signal.SIGKILL)
        wait_until(lambda: "the model's files must lie at the same path on every machine" in server.stderr, 15, "the log says so")
        folder.with_name("elsewhere").rename(folder)
        wait_until(lambda: self.health() == 1, 20, "the group serves again")


class AgentsByCertificateTest(AgentCase, unittest.TestCase):
    """Mutual TLS in place of a token."""

    def certificate(self, name, authority=None):
        key, request_file, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        if authority is None:
            self.run_openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate)
            return certificate, key
        self.run_openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request_file)
        extension = self.folder / f"{name}.ext"
        extension.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.run_openssl("x509", "-req", "-in", request_file, "-CA", authority[0], "-CAkey", authority[1], "-CAcreateserial", "-days", "2", "-extfile", extension,
                         "-out", certificate)
        return certificate, key

    def run_openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def test_an_agent_joins_with_a_certificate_of_the_right_authority_only(self):
        authority, other = self.certificate("authority"), self.certificate("other")
        door, good, bad = self.certificate("door", authority), self.certificate("good", authority), self.certificate("bad", other)
        server = Server(config=TWO_HOSTS, stages=1, wait=False, arguments=(
            "--set", f"agent_address=127.0.0.1:{self.port()}", "--set", "enable_grpc_ssl=true", "--set", f"certificate_file={door[0]}",
            "--set", f"private_key_file={door[1]}", "--set", f"client_ca_file={authority[0]}"))
        self.addCleanup(server.close)

        def join(name, certificate):
            with open(self.folder / f"{name}.log", "a") as log:
                self.agents.append(subprocess.Popen(
                    [BIN / "penstock", "agent", "--front-door", f"127.0.0.1:{self.port()}", "--ca-file", authority[0], "--certificate-file", certificate[0],
                     "--private-key-file", certificate[1], "--name", name, "--log-dir", self.folder / name],
                    stdout=log, stderr=log, env=dict(os.environ, PENSTOCK_WORKER=FAKE_WORKER)))
        join("bad", bad)
        wait_until(lambda: "no front door at" in self.said("bad"), what="the wrong certificate is refused")
        join("good", good)
        server.wait_started()
        self.assertIn("joined the front door", self.said("good"))
        self.assertNotIn("joined the front door", self.said("bad"))


if __name__ == "__main__":
    unittest.main()
