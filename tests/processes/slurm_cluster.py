"""A Slurm of one machine, in a temporary folder and on free ports: munged, slurmctld and slurmd, ended with the test."""
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol", "sinfo")


class NoSlurm(Exception):
    """Why there is none."""


def program(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SlurmCluster:
    def __init__(self):
        missing = [name for name in PROGRAMS if not program(name)]
        if missing:
            raise NoSlurm(f"not installed: {', '.join(missing)} (scripts/install-deps --dev)")
        self.temporary = tempfile.TemporaryDirectory(prefix="penstock-slurm-")
        self.folder = pathlib.Path(self.temporary.name)
        self.folder.chmod(0o755)  # munged insists that all may reach its socket
        self.daemons = []
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self):
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        munge = {"key-file": key, "socket": self.folder / "munge.socket", "pid-file": self.folder / "munged.pid",
                 "log-file": self.folder / "munged.log", "seed-file": self.folder / "munged.seed"}
        self.daemon("munged", "--foreground", "--force", *[f"--{name}={path}" for name, path in munge.items()])
        self.wait_for(munge["socket"].exists, "munged")
        self.write_configuration()
        self.daemon("slurmctld", "-D")
        self.daemon("slurmd", "-D", "-N", socket.gethostname())
        self.wait_for(lambda: "idle" in self.say("sinfo", "-h", "-o", "%t"), "an idle node")

    def write_configuration(self):
        host = socket.gethostname()
        user = "root" if os.getuid() == 0 else str(os.getuid())
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        # A requeued job waits until its credentials have expired. Eight processors are claimed whatever the machine has: the tests' ranks are small.
        (self.folder / "slurm.conf").write_text(f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={self.folder}/munge.socket,cred_expire=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0
ReturnToService=2
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")

    def daemon(self, name, *arguments):
        output = open(self.folder / f"{name}.out", "ab")
        self.daemons.append((name, subprocess.Popen([program(name), *map(str, arguments)], env=self.environment, stdout=output, stderr=output)))
        output.close()

    def say(self, *command):
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30).stdout

    def wait_for(self, condition, what, limit=120):
        end = time.monotonic() + limit
        while not condition():
            gone = [name for name, process in self.daemons if process.poll() is not None]
            if gone or time.monotonic() > end:
                logs = "".join(p.read_text(errors="replace")[-600:] for p in sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.log")))
                raise NoSlurm(f"{' and '.join(gone) or what} did not come up: {logs[-1500:]}")
            time.sleep(0.1)

    def stop(self):
        for _, process in reversed(self.daemons):
            process.terminate()
        for _, process in reversed(self.daemons):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.temporary.cleanup()
