"""What the rows of the benchmark share: sessions, pairs of times, lines of the table."""

import statistics
import subprocess
import sys
import time


class Session:
    """One psql session that runs statements and tells how long each took."""

    def __init__(self, environment=None):
        self.process = subprocess.Popen(
            ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )

    def ask(self, statement):
        self.process.stdin.write(statement + ";\n\\echo .\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == ".":
                return lines
            lines.append(line.rstrip("\n"))
        sys.exit("psql ended: " + statement)

    def timed(self, statement):
        begun = time.perf_counter()
        self.ask(statement)
        return time.perf_counter() - begun

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed_command(*command):
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def compare(rounds, ours, theirs):
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    mine = statistics.median(pair[0] for pair in pairs)
    other = statistics.median(pair[1] for pair in pairs)
    return mine, other


def show(name, mine, other, what, goal):
    print(f"{name:<42} {mine:>9.3f} s {other:>9.3f} s   {what:<12} goal {goal}", flush=True)
