"""Packages of PyPI for a test, in a virtual environment of their own beside the build; where they cannot be had, the test is skipped by name."""
import fcntl
import importlib
import os
import pathlib
import subprocess
import sys
import unittest

BIN = pathlib.Path(os.environ.get("PENSTOCK_BIN", "build/bin"))


def packages(environment, variable, *names):
    """The modules. `environment`: the virtual environment's name; `variable`: names one that has them already, or where it is to be made."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError:
        pass
    folder = pathlib.Path(os.environ.get(variable, BIN.parent / environment))
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / (folder.name + ".lock"), "w") as lock:  # tests run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((site / name).exists() for name in names):
            install(folder, names)
    sys.path.insert(0, str(site))  # before what Debian has of the same things
    importlib.invalidate_caches()
    return [importlib.import_module(name) for name in names]


def install(folder, names):
    wanted = f"the package{'' if len(names) == 1 else 's'} {', '.join(names)}"
    try:
        for command in ([sys.executable, "-m", "venv", str(folder)],
                        [str(folder / "bin" / "python"), "-m", "pip", "install",  # the script pip breaks when the folder is moved
                         "--quiet", "--retries", "0", "--timeout", "20", *names]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=150)
            if done.returncode != 0:
                raise unittest.SkipTest(f"{wanted} cannot be had: {' '.join(command)}: {(done.stderr or done.stdout).strip()[-300:]}")
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise unittest.SkipTest(f"{wanted} cannot be had: {failed}")
