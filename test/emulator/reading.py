"""What one function reads: a component at a timestamp, and what it costs.

Convex: crates/database/src/transaction.rs, crates/database/src/reads.rs.
"""

import values
from function_errors import Thrown
from store import VIRTUAL_TABLES


class Reading:
    """One function at one timestamp. Use under `Store.lock`."""

    def __init__(self, emulator, ts, component="", parent=None, ignores_filter=False):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings
        self.cursors = emulator.cursors
        self.ts = ts
        self.component = component    # None: of a component that has no tables
        self.cost = Cost() if parent is None else parent.cost
        self.ignores_filter = ignores_filter
        self.declaration = emulator.declarations.at(ts)
        self.named = {}    # tables looked up

    def inside(self, component):
        """The same function in a component; it has the same limits."""
        return Reading(self.emulator, self.ts, component, self, self.ignores_filter)

    def table(self, name):
        """The tablet of a user table, or None."""
        if name not in self.named:
            self.named[name] = self.store.table_at(self.component, name, self.ts)
        return self.named[name]

    def virtual(self, name):
        """The tablet of a virtual table, or None."""
        if name not in VIRTUAL_TABLES or self.component is None:
            return None
        return self.store.virtual_table(self.component, name)

    def tables(self):
        """The user tables, by their numbers."""
        found = [tablet for tablet in self.store.tablets_at(self.ts) if tablet.component == self.component]
        return sorted(found, key=lambda tablet: tablet.number)

    def by_number(self, number):
        return next((tablet for tablet in self.tables() if tablet.number == number), None)

    def get(self, tablet, internal):
        """The revision of a document, or None; asking for it is a range of an index."""
        self.cost.ranges.add((tablet, internal))
        limit = self.store.max_tx_ranges
        if len(self.cost.ranges) > limit:
            raise Thrown(f"Too many reads in a single function execution (limit: {limit}).")
        revision = tablet.revision(internal, self.ts)
        if revision is not None:
            self.read(revision.doc)
        return revision

    def read(self, document):
        """Counts a document; gives its size."""
        cost, store = self.cost, self.store
        size = values.value_size(document)
        cost.documents += 1
        cost.bytes += size
        if cost.documents > store.max_tx_documents_read:
            raise Thrown("Too many documents read in a single function execution (limit: "
                         f"{store.max_tx_documents_read}).")
        if cost.bytes > store.max_tx_bytes_read:
            raise Thrown(f"Too many bytes read in a single function execution (limit: {store.max_tx_bytes_read} bytes).")
        return size


class Cost:
    def __init__(self):
        self.documents = self.bytes = 0
        self.ranges = set()
