"""What the test runners share: a cluster, an emulator, programs that end.

Everything started here is ended here, also when the runner is interrupted.
"""

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
CLUSTER = TOP / "test/run/cluster"
EMULATOR = TOP / "test/emulator/convex_emulator.py"


def end_on_signals():
    """Make SIGTERM and SIGHUP unwind the stack as SIGINT does."""

    def end(number, _frame):
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


@contextlib.contextmanager
def emulator(*arguments):
    """Run an emulator; gives its URL. It ends when its stdin closes."""
    process = subprocess.Popen(
        [sys.executable, EMULATOR, "--port", "0", "--exit-with-stdin", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield _announced_url(process)
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced_url(process):
    prefix = "listening on "
    for line in process.stdout:
        if line.startswith(prefix):
            return line[len(prefix):].strip()
    sys.exit("the emulator ended before it was listening")


@contextlib.contextmanager
def cluster():
    """Use the cluster CONVEX_TEST_CLUSTER names, or one of our own.

    Sets the environment of libpq clients.
    """
    given = os.environ.get("CONVEX_TEST_CLUSTER")
    if given:
        _enter(given)
        yield given
        return
    own = tempfile.mkdtemp(prefix="convex_fdw.", dir="/tmp")
    try:
        subprocess.run([CLUSTER, "start", own], check=True)
        _enter(own)
        yield own
    finally:
        subprocess.run([CLUSTER, "remove", own], check=False)


def _enter(directory):
    lines = subprocess.run(
        [CLUSTER, "env", directory], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    for word in shlex.split(lines):
        name, separator, value = word.partition("=")
        if separator:
            os.environ[name] = value.replace("$PATH", os.environ["PATH"])


def pg_config(what):
    """One answer of pg_config."""
    program = os.environ.get("PG_CONFIG", "pg_config")
    return subprocess.run(
        [program, f"--{what}"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@contextlib.contextmanager
def scratch_directory():
    """A directory that is gone afterwards."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="convex_fdw_run.", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
