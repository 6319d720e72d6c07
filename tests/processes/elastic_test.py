"""Jobs of several machines: two agents on this one. A machine is lost, comes back, is asked to leave; the losses are those of an undisturbed run."""
import json
import os
import pathlib
import signal
import subprocess
import unittest

from slurm_cluster import free_port
from train_case import LIMIT, TrainCase

# One micro-batch a replica: two replicas add the same two gradients as one replica adds in turn, so that losses are equal bit by bit.
SETTINGS = {"mesh.data": 2, "mesh.pipe": 1, "batch.microbatches": 1, "checkpoint.every_steps": 10, "validation.every_steps": 1, "validation.batches": 1}
TIMES = "last_call_timeout=300,keep_alive_interval=2,keep_alive_max_attempt=3,join_timeout=300"


class ElasticTest(TrainCase):
    undisturbed = {}  # losses by number of steps

    def setUp(self):
        super().setUp()
        self.port = free_port()

    def agent(self, name, node, *arguments, nnodes="1:2", **settings):
        place = ["--nnodes", nnodes, "--node-rank", node, "--rdzv-endpoint", f"127.0.0.1:{self.port}", "--rdzv-conf", TIMES, "--oversubscribe"]
        return self.start(name, *place, *arguments, **{**SETTINGS, **settings})

    def reports(self, name):
        metrics = self.folder / name / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def wait_for_step(self, name, step, *agents):
        def there():
            for agent in agents:
                self.assertIsNone(agent.poll(), "an agent has ended before its time")
            return any(r["step"] >= step for r in self.reports(name)[-2:])
        self.wait_for(there, f"step {step}")

    def wait_for_world(self, agent, size):
        def there():
            self.assertIsNone(agent.poll(), "an agent has ended before its time")
            return any(self.world_of(pid) == size for pid in self.ranks(agent).values())
        self.wait_for(there, f"a world of {size}")

    def world_of(self, pid):
        try:
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return 0
        return next((int(v[11:]) for v in environment if v.startswith(b"WORLD_SIZE=")), 0)

    def end_of(self, *agents):
        """Their stderr; all have ended well, and so have their ranks."""
        texts = [agent.communicate(timeout=LIMIT)[1] for agent in agents]
        self.assertEqual([agent.returncode for agent in agents], [0] * len(agents), texts)
        return texts

    def expect_undisturbed(self, name, steps):
        losses = [r["loss"] for r in self.reports(name)]
        self.assertEqual([r["step"] for r in self.reports(name)], list(range(1, steps + 1)), "a step is missing or written twice")
        if steps not in self.undisturbed:
            self.train("undisturbed", **{**SETTINGS, "steps": steps})
            self.undisturbed[steps] = self.losses("undisturbed")
        self.assertEqual(losses, self.undisturbed[steps])

    def test_a_lost_machine_shrinks_the_job_and_its_return_grows_it(self):
        steps = 300
        zero, one = self.agent("run", 0, steps=steps), self.agent("run", 1, steps=steps)
        self.wait_for_step("run", 25, zero, one)
        lost = self.ranks(one)
        self.assertEqual(list(lost), [1])
        os.kill(one.pid, signal.SIGKILL)
        self.wait_for(lambda: not os.path.exists(f"/proc/{lost[1]}"), "the end of the lost machine's rank")
        self.wait_for_world(zero, 1)
        shrunk_at = self.reports("run")[-1]["step"]
        self.wait_for_step("run", shrunk_at + 10, zero)
        again = self.agent("run", 1, steps=steps)
        self.wait_for_world(again, 2)
        left = list(self.ranks(zero).values()) + list(self.ranks(again).values())
        text, _ = self.end_of(zero, again)
        self.assertRegex(text, r"nodes 0, 1: 2 replicas x 1 stage with 1 micro-batch each")
        self.assertRegex(text, r"node 1 \(.*\) has not answered for 6\.0 s; going on with node 0: 1 replica x 1 stage with 2 micro-batches each")
        self.assertRegex(text, r"node 1 has come; going on with nodes 0, 1: 2 replicas")
        self.assertFalse([pid for pid in left if os.path.exists(f"/proc/{pid}")], "ranks that outlive their agents")
        self.expect_undisturbed("run", steps)

    def test_a_killed_rank_restarts_the_ranks_of_all_machines(self):
        steps = 100
        zero, one = self.agent("run", 0, "--max-restarts", 1, steps=steps), self.agent("run", 1, "--max-restarts", 1, steps=steps)
        self.wait_for_step("run", 25, zero, one)
        os.kill(self.ranks(one)[1], signal.SIGKILL)
        text, _ = self.end_of(zero, one)
        self.assertRegex(text, r"node 1: rank 1 killed by signal 9 \(SIGKILL\) \(restart 1 of 1\); going on with nodes 0, 1")
        self.expect_undisturbed("run", steps)

    def test_without_the_machine_of_the_rendezvous_the_others_wait_for_it(self):
        steps = 100
        zero, one = self.agent("run", 0, steps=steps), self.agent("run", 1, steps=steps)
        self.wait_for_step("run", 25, zero, one)
        pids = list(self.ranks(zero).values()) + list(self.ranks(one).values())
        os.kill(zero.pid, signal.SIGKILL)
        self.wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the end of all ranks")
        self.assertIsNone(one.poll())
        again = self.agent("run", 0, "--auto-resume", steps=steps)
        self.end_of(again, one)
        self.expect_undisturbed("run", steps)

    def test_a_machine_that_is_asked_to_leave_loses_no_step(self):
        steps = 100
        zero, one = self.agent("run", 0, steps=steps), self.agent("run", 1, steps=steps)
        self.wait_for_step("run", 25, zero, one)
        one.send_signal(signal.SIGTERM)
        self.end_of(one)
        text, = self.end_of(zero)
        self.assertRegex(text, r"a machine was asked to stop; going on with node 0: 1 replica")
        self.expect_undisturbed("run", steps)

    def test_a_stop_signal_for_the_machine_of_the_rendezvous_ends_the_job_with_a_checkpoint(self):
        zero, one = self.agent("run", 0, steps=100000), self.agent("run", 1, steps=100000)
        self.wait_for_step("run", 25, zero, one)
        zero.send_signal(signal.SIGTERM)
        texts = self.end_of(zero, one)
        self.assertIn("node 0, which holds the rendezvous, was asked to stop", texts[1])
        self.assertEqual(self.checkpoints("run")[-1], f"step-{self.reports('run')[-1]['step']:08d}")

    def test_the_users_mistake_ends_all_machines_at_once(self):
        wrong = {"data.path": "/nowhere", "steps": 10}
        agents = self.agent("run", 0, "--max-restarts", 3, **wrong), self.agent("run", 1, "--max-restarts", 3, **wrong)
        texts = [agent.communicate(timeout=LIMIT)[1] for agent in agents]
        self.assertEqual([agent.returncode for agent in agents], [2, 2], texts)
        self.assertIn("/nowhere", "".join(texts))
        self.assertNotIn("restart 1", "".join(texts))

    def test_one_machine_needs_no_endpoint_and_ranks_that_do_not_divide_the_step_are_not_started(self):
        done = subprocess.run(self.command("run", "--nnodes", 1, "--nproc-per-node", 3, "--oversubscribe",
                                           **{**SETTINGS, "batch.microbatches": 2, "steps": 5}), capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 replicas x 1 stage with 2 micro-batches each; 1 rank not started, as the step's 4 micro-batches", done.stderr)

    def refused(self, *arguments, **settings):
        done = subprocess.run(self.command("none", *arguments, **{**SETTINGS, "steps": 5, **settings}), capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def test_flags_that_do_not_fit_are_refused(self):
        self.assertIn("--rdzv-endpoint HOST:PORT", self.refused("--nnodes", 2))
        self.assertIn("say of how many with --nnodes", self.refused("--node-rank", 1))
        place = ["--node-rank", 0, "--rdzv-endpoint", f"127.0.0.1:{self.port}"]
        self.assertIn("checkpoint.every_steps is 0", self.refused("--nnodes", "1:2", *place, **{"checkpoint.every_steps": 0}))
        self.assertIn("--nproc-per-node", self.refused("--nnodes", 3, *place))

    def test_two_jobs_at_one_rendezvous_are_told_apart(self):
        self.agent("run", 0, "--rdzv-id", "a", steps=100000)
        done = subprocess.run(self.command("other", "--nnodes", "1:2", "--node-rank", 1, "--rdzv-endpoint", f"127.0.0.1:{self.port}", "--rdzv-id", "b", "--oversubscribe",
                                           **{**SETTINGS, "steps": 5}), capture_output=True, text=True, timeout=LIMIT)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("rendezvous of job 'a', and node 1 wants job 'b'", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
