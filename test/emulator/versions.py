"""Which timestamps functions can read: Convex keeps a list of versions in memory, and drops old ones.

A version is a commit, or a bump: some seconds after the last commit, then hourly. When one is added, the oldest goes
while its *successor* is older than the window. So a timestamp that was the newest when it was taken stays readable
for at least the window after the version that follows it.

Convex: crates/database/src/snapshot_manager.rs (`push`, `snapshot`).
"""

from collections import deque

SECOND = 10**9


class Versions:
    """Use under `Store.lock`."""

    def __init__(self, ts):
        self.query_window_s = 10     # "off": nothing goes
        self.bump_ns = 5 * SECOND    # from the last commit to the bump; None: there is none
        self.restart(ts)

    def restart(self, ts):
        """Nothing older than this can be read."""
        self.kept = deque([ts])
        self.has_bump = False        # since the last commit

    def push(self, ts):
        window = self.query_window_s
        while window != "off" and len(self.kept) > 1 and ts - self.kept[1] > int(window * SECOND):
            self.kept.popleft()
        self.kept.append(ts)

    def committed(self, ts):
        self.bump(ts - 1)
        self.push(ts)
        self.has_bump = False

    def bump(self, now):
        """Adds the bump after the last commit if its time has come; gives the newest version."""
        if self.bump_ns is not None and not self.has_bump and self.kept[-1] + self.bump_ns <= now:
            self.push(self.kept[-1] + self.bump_ns)
            self.has_bump = True
        return self.kept[-1]

    def idled(self, ts):
        """The hourly bump of a deployment without commits."""
        if ts > self.kept[-1]:
            self.push(ts)
        self.has_bump = True

    def is_readable(self, ts):
        return ts >= self.kept[0]
