"""When the transactions of a request begin and commit: one request at a time, or side by side as Convex has them.

Convex begins a transaction at the newest timestamp, works without any lock, and leaves it to the one committer to
look whether something that was read has changed since. A loser is not run again on the routes that use this:
its request ends with 503, and what it committed before stays.

Convex: crates/database/src/committer.rs, crates/application/src/lib.rs (`apply_fivetran_operations`).
"""

import contextlib
import time

import tables
from store import TransactionFull

CONCURRENT = "concurrent"
MODES = ("serial", CONCURRENT)


class Committer:
    def __init__(self, emulator):
        self.store = emulator.store
        self.settings = emulator.settings
        self.changed = emulator.imports.changed    # the store's lock; notified when settings have changed
        self.open = 0                              # transactions between begin and commit

    def run(self, entry, work, writer, page_writer=None):
        """Has `work(tx)` done in as many transactions as it takes: it is true when nothing is left to do.

        `writer` is what Convex calls this kind of transaction, `page_writer` one that is not the last of its request.
        """
        is_serial = self.settings.committer != CONCURRENT
        with self.store.lock if is_serial else contextlib.nullcontext():
            is_done = False
            while not is_done:
                tx, is_done = self._begin(work)
                if not is_serial:
                    self.let_others_commit()
                self._commit(entry, tx, writer if is_done else page_writer)

    def run_rows(self, entry, rows, apply, writer, page_writer):
        """Applies rows in order; the one that hits a limit goes into a new transaction, and must fit there."""
        position = 0

        def work(tx):
            nonlocal position
            first = position
            while position < len(rows):
                try:
                    apply(tx, rows[position])
                except TransactionFull:
                    if position == first:
                        raise
                    return False
                position += 1
            return True
        self.run(entry, work, writer, page_writer)

    def _begin(self, work):
        """All that a transaction does, it does as of its begin."""
        with self.store.lock:
            tables.finish_backfills(self.store)
            tx = self.store.transaction(has_limits=True)
            is_done = work(tx)
            self.open += 1
            return tx, is_done

    def let_others_commit(self):
        """The time between begin and commit."""
        time.sleep(max(0, self.settings.commit_latency_ms) / 1000)
        with self.changed:
            while self.settings.commit_hold:
                self.changed.wait()

    def _commit(self, entry, tx, writer):
        with self.store.lock:
            self.open -= 1
            error = tx.conflict(writer)
            if error is not None:
                raise error
            entry.add_commit(tx.commit(writer))
