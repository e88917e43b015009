"""The database: the log of all revisions, what exists, and transactions.

Timestamps are int64 nanoseconds, strictly increasing from transaction to transaction.

Invariants, all under `Store.lock`:
1. `log_ts` and `log` run in step, sorted by timestamp; rows of one transaction share it.
2. `structure` holds every timestamp at which some tablet began or ceased to serve a name.

A transaction does all its reads at once, when it begins. Whoever lets time pass before its commit asks for
`conflict` then: what it read must still be so.

Convex: crates/database/src/{transaction,reads,writes,committer}.rs, crates/value/src/table_mapping.rs.
"""

import bisect
import math
import random
import threading
import time

import values
from errors import ApiError, bad_request, write_conflict
from tablets import ACTIVE, DELETED, HIDDEN, Component, Revision, Tablet, goes_on
from versions import Versions

MAX_USER_TABLES = 10_000

# Name as functions see it -> the number in ids, and the name of the system table behind it.
VIRTUAL_TABLES = {"_storage": (21, "_file_storage"), "_scheduled_functions": (22, "_scheduled_jobs")}

# What a table's birth, change or end writes to system tables: its row and those of its two indexes.
TABLE_SYSTEM_ROWS = 3


class TransactionFull(ApiError):
    """A limit of one transaction; importers commit and go on in a new one."""

    def __init__(self, code, message):
        super().__init__(400, code, message)


class Overlay:
    """The keys of documents that an open transaction has written: what an index will be."""

    def __init__(self):
        self.keys = {}    # internal id -> its key now, None when deleted
        self.ids = {}     # key -> internal ids
        self.long_keys = set()

    def put(self, internal, key):
        before = self.keys.get(internal)
        if before is not None:
            self.ids[before].discard(internal)
        self.keys[internal] = key
        if key is not None:
            self.ids.setdefault(key, set()).add(internal)
            if goes_on(key):
                self.long_keys.add(key)


NO_OVERLAY = Overlay()   # stays empty


class Ranges:
    """The keys of one index that an open transaction has looked up. Neighbours without a gap are one range."""

    def __init__(self):
        self.starts = set()
        self.ends = set()
        self.count = 0

    def add(self, prefix):
        if prefix in self.starts:
            return
        end = after_prefix(prefix)
        self.count += 1 - (prefix in self.ends) - (end in self.starts)
        self.starts.add(prefix)
        self.ends.add(end)

    def holds(self, key):
        """Whether a document with this key was, or would have been, found."""
        prefix = b""
        for part in key:
            prefix += part
            if prefix in self.starts:
                return True
        return goes_on(key) and any(map(prefix.startswith, self.starts))


def after_prefix(prefix):
    """The first key beyond all that begin with this one."""
    prefix = prefix.rstrip(b"\xff")
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else None


class Store:
    def __init__(self, seed=None):
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.clock_offset_ns = 0
        self.head_frozen = False
        self.idle_head_ns = 3600 * 10**9   # an idle deployment moves its head hourly
        self.retention_floor = None
        self.retention_ns = 14 * 86400 * 10**9
        self.snapshot_max_age_ns = 5 * 86400 * 10**9
        self.index_backfill_ms = 200
        self.index_backfill_polls = 1
        self.max_tx_writes = 16_000
        self.max_tx_bytes_written = 16 << 20
        self.max_tx_documents_read = 32_000
        self.max_tx_bytes_read = 16 << 20
        self.max_tx_ranges = 4096
        self.last_ts = 0
        self.versions = Versions(0)
        self.bump_shows = False     # the bump after a commit moves the head, too, as on a real deployment
        self.structure_version = 0
        self.enforcer = None    # called with (tablet, document) before a write; raises
        self.clear()

    def clear(self):
        """Back to an empty deployment; time goes on."""
        with self.lock:
            self.components = {"": Component("")}
            self.tablets = {}        # id -> Tablet, of all states
            self.log_ts = []
            self.log = []            # (ts, tablet or None for a system row, internal id, Revision)
            self.structure = []
            self.indexes_ts = 0      # when some index last changed
            self.backfilling = {}    # Index -> its tablet
            self.writers = {}        # timestamp -> what Convex calls the writer of this transaction
            self.structure_version += 1
            self.retention_floor = None
            self.virtual = {}        # (component, name) -> Tablet of a virtual table; no export knows it
            self.first_ts = self.next_ts()
            self.versions.restart(self.first_ts)

    # ------------------------------------------------------------ time

    def now_ns(self):
        return time.time_ns() + self.clock_offset_ns

    def head(self):
        """The newest timestamp that can be read: the last commit, or later on an idle deployment."""
        if not self.head_frozen:
            now = self.now_ns()
            bumped = self.versions.bump(now)
            if now - self.last_ts >= self.idle_head_ns:
                self.last_ts = now
                self.versions.idled(now)
            elif self.bump_shows:
                self.last_ts = max(self.last_ts, bumped)
        return self.last_ts

    def floor(self):
        """The oldest timestamp that is kept, or None: nothing goes before the deployment is old enough."""
        floors = [] if self.retention_floor is None else [self.retention_floor]
        kept = self.head() - self.retention_ns
        if kept > self.first_ts:
            floors.append(kept)
        return max(floors, default=None)

    def next_ts(self):
        self.last_ts = max(self.last_ts + 1, self.versions.kept[-1] + 1, self.now_ns())
        self.versions.committed(self.last_ts)
        return self.last_ts

    # ------------------------------------------------------------ what exists

    def table(self, component, name):
        """The tablet that serves a table now, or None."""
        found = self.components.get(component)
        return found.tables.get(name) if found else None

    def tablets_at(self, ts):
        """Every tablet that served a table at a timestamp, in tablet order."""
        return sorted((tablet for tablet in self.tablets.values() if tablet.state_at(ts) == ACTIVE),
                      key=lambda tablet: tablet.id)

    def table_at(self, component, name, ts):
        """The tablet that served a table at a timestamp, or None."""
        return next((tablet for tablet in self.tablets.values() if tablet.name == name
                     and tablet.component == component and tablet.state_at(ts) == ACTIVE), None)

    def count_at(self, tablet, ts):
        """How many documents a tablet had: the count of today without what came later."""
        count = tablet.count
        for at in range(self.log_from(ts), len(self.log)):
            since, changed, internal, revision = self.log[at]
            if changed is tablet:
                was_live = tablet.revision(internal, since - 1) is not None
                count += was_live - (revision.doc is not None)
        return count

    def virtual_table(self, component, name):
        """A table that only system functions show; made when it is first asked for."""
        found = self.virtual.get((component, name))
        if found is None:
            tablet_id = bytes(15) + bytes([len(self.virtual)])
            found = self.virtual[component, name] = Tablet(tablet_id, VIRTUAL_TABLES[name][0], component, name)
        return found

    def structure_epoch(self, ts):
        return bisect.bisect_right(self.structure, ts)

    def active_tablets(self):
        return [tablet for component in self.components.values()
                for tablet in sorted(component.tables.values(), key=lambda tablet: tablet.id)]

    def random_bytes(self):
        return self.random.getrandbits(128).to_bytes(16, "big")

    def indexes_changed(self, ts, tablet):
        self.indexes_ts = tablet.indexes_ts = ts

    def transaction(self, has_limits=False):
        return Transaction(self, has_limits)

    def log_from(self, cursor):
        return bisect.bisect_right(self.log_ts, cursor)


class Transaction:
    """Writes that become visible together. Use under `Store.lock`; `commit` gives the timestamp."""

    def __init__(self, store, has_limits):
        self.store = store
        self.begin_ts = store.last_ts
        self.first_ts = store.first_ts
        self.has_limits = has_limits
        self.overlays = {}      # (tablet, index) -> Overlay
        self.writes = {}        # (tablet, internal id) -> document or None
        self.created = {}       # (component, table) -> new Tablet
        self.structure = []     # functions of the timestamp
        self.new_indexes = []   # (tablet, name, Index)
        self.system_rows = 0
        self.write_count = self.bytes_written = 0
        self.documents_read = self.bytes_read = 0
        self.ranges = {}        # (tablet, index) -> Ranges
        self.scans = []         # (tablet, which documents): ranges that no key begins
        self.reads_all_indexes = False
        self.ids_seen = set()   # (tablet, internal id) of documents read by id (a range each) or new
        self.id_ranges = 0
        self.time_ms = None

    # ------------------------------------------------------------ tables

    def component(self, path, create=False):
        found = self.store.components.get(path)
        if found is None and create:
            if not values.is_component_path(path):
                raise bad_request("InvalidComponentPath", f"Invalid component path {path!r}")
            found = self.store.components[path] = Component(path)
            self.system_rows += 1
        return found

    def table(self, component, name, create=False, number=None):
        """The tablet that serves a table for this transaction, or None; a new one may ask for a number."""
        tablet = self.created.get((component, name)) or self.store.table(component, name)
        if tablet is None and create:
            tablet = self.new_tablet(component, name, number)
            self.created[component, name] = tablet
            self.structure.append(lambda ts: self._activate(tablet, ts))
        return tablet

    def new_tablet(self, component, name, number=None):
        """An empty tablet that serves nothing yet."""
        if not values.is_identifier(name):
            raise bad_request("InvalidTableName", f"Invalid table name {name!r}: table names must be "
                              "identifiers")
        if name.startswith("_"):
            raise bad_request("TableNameReserved", f"{name} is a reserved table name")
        owner = self.component(component, create=True)
        if number is None:
            old = self.store.table(component, name)
            number = old.number if old else owner.next_number
        if sum(len(each.tables) for each in self.store.components.values()) >= MAX_USER_TABLES:
            raise bad_request("TooManyTables", f"Number of tables cannot exceed {MAX_USER_TABLES}.")
        owner.next_number = max(owner.next_number, number + 1)
        self.system_rows += TABLE_SYSTEM_ROWS
        return Tablet(self.store.random_bytes(), number, component, name)

    def hide(self, tablet):
        """A new tablet becomes a hidden one: deltas show its rows, nothing else does."""
        self.structure.append(lambda ts: self._register(tablet, ts, HIDDEN))

    def activate(self, tablet):
        """This tablet serves its name from now on; the one before it, if any, no longer."""
        self.system_rows += TABLE_SYSTEM_ROWS
        self.structure.append(lambda ts: self._activate(tablet, ts))

    def drop(self, tablet):
        self.system_rows += TABLE_SYSTEM_ROWS
        self.structure.append(lambda ts: self._drop(tablet, ts))

    def _register(self, tablet, ts, state):
        store = self.store
        if tablet.id not in store.tablets:
            store.tablets[tablet.id] = tablet
        tablet.set_state(ts, state)

    def _activate(self, tablet, ts):
        tables = self.store.components[tablet.component].tables
        before = tables.get(tablet.name)
        if before is not None and before is not tablet:
            self._end(before, ts)
        tables[tablet.name] = tablet
        self._register(tablet, ts, ACTIVE)

    def _end(self, tablet, ts):
        tablet.set_state(ts, DELETED)
        for index in tablet.indexes.values():
            self.store.backfilling.pop(index, None)

    def _drop(self, tablet, ts):
        self._end(tablet, ts)
        tables = self.store.components[tablet.component].tables
        if tables.get(tablet.name) is tablet:
            del tables[tablet.name]

    # ------------------------------------------------------------ documents

    def get(self, tablet, internal):
        """The document as this transaction sees it, or None."""
        key = tablet, internal
        if key in self.writes:
            document = self.writes[key]
        else:
            revision = tablet.revision(internal)
            document = revision.doc if revision else None
        if document is not None and self.has_limits:
            self._count_read(values.value_size(document))
        return document

    def find(self, tablet, index, prefix):
        """Internal ids of the documents whose keys begin with this one, as this transaction sees them."""
        seen = self.overlays.get((tablet, index), NO_OVERLAY)
        keys = {prefix}
        is_whole = len(prefix) == len(index.fields)
        others = {*index.long_keys, *seen.long_keys} if is_whole else {*index.ids, *seen.ids}
        if others:
            begin = b"".join(prefix)
            keys.update(key for key in others if b"".join(key).startswith(begin))
        found = [internal for key in keys for internal in index.ids.get(key, ()) if internal not in seen.keys]
        return found + [internal for key in keys for internal in seen.ids.get(key, ())]

    def count_range(self, tablet, index, key):
        """Looking up a key, or the first parts of one, is a range."""
        if self.has_limits:
            self.ranges.setdefault((tablet, index), Ranges()).add(b"".join(key))
            self._check_ranges()

    def scan(self, tablet, is_read):
        """Reading all documents of which `is_read` is true depends on there being no others."""
        self.scans.append((tablet, is_read))

    def _check_ranges(self):
        limit = self.store.max_tx_ranges
        if self.id_ranges + sum([ranges.count for ranges in self.ranges.values()]) > limit:
            raise TransactionFull("TooManyReads", f"Too many reads in a single function execution (limit: {limit})")

    def add_index(self, tablet, name, index):
        """A new one, or one in the place of another; it has the tablet's documents from the commit on."""
        self.system_rows += 1
        self.reads_all_indexes = True
        self.new_indexes.append((tablet, name, index))

    def _read_again(self, tablet, internal):
        """Whoever changes a document reads it once more, by its id."""
        if not self.has_limits:
            return
        if (tablet, internal) not in self.ids_seen:
            self.ids_seen.add((tablet, internal))
            self.id_ranges += 1
            self._check_ranges()
        self.get(tablet, internal)

    def insert(self, tablet, fields, internal=None, creation_time=None):
        """Adds a document with `_id` and `_creationTime`; gives its internal id."""
        if internal is None:
            internal = self.store.random_bytes()
        if creation_time is None:
            creation_time = self._next_time()
        document = self._document(tablet, internal, creation_time, fields)
        self._write(tablet, internal, document)
        self.ids_seen.add((tablet, internal))
        return internal

    def replace(self, tablet, internal, before, fields):
        """Identical content is no write."""
        self._read_again(tablet, internal)
        document = self._document(tablet, internal, before["_creationTime"], fields)
        if not values.same_value(document, before):
            self._write(tablet, internal, document)

    def delete(self, tablet, internal):
        self._read_again(tablet, internal)
        self._write(tablet, internal, None)

    def _document(self, tablet, internal, creation_time, fields):
        document = {**fields}
        own_id = tablet.id_text(internal)
        if document.setdefault("_id", own_id) != own_id:
            raise bad_request("InvalidIdError", f"Provided document ID \"{own_id}\" doesn't match '_id' field "
                              f"{values.encode_value(document['_id'], values.ENCODED)}")
        if not values.same_value(document.setdefault("_creationTime", creation_time), creation_time):
            raise bad_request("InvalidCreationTimeError", f"Provided creation time {creation_time} doesn't match "
                              "'_creationTime' field")
        values.check_document(document)
        return values.canonical(document)

    def _next_time(self):
        now = self.time_ms if self.time_ms is not None else self.store.now_ns() / 1e6
        self.time_ms = math.nextafter(now, math.inf)
        return now

    def _write(self, tablet, internal, document):
        size = 0
        if document is not None:
            if self.store.enforcer is not None:
                self.store.enforcer(tablet, document)
            size = values.check_size(document)
        if self.has_limits:
            store = self.store
            if self.write_count + 1 > store.max_tx_writes:
                raise TransactionFull("TooManyWrites", "Too many writes in a single function execution "
                                      f"(limit: {store.max_tx_writes})")
            if self.bytes_written + size > store.max_tx_bytes_written:
                raise TransactionFull("TooManyBytesWritten", "Too many bytes written in a single function "
                                      f"execution (limit: {store.max_tx_bytes_written} bytes)")
        self.write_count += 1
        self.bytes_written += size
        self.writes[tablet, internal] = document
        for index in tablet.indexes.values():
            overlay = self.overlays.setdefault((tablet, index), Overlay())
            overlay.put(internal, None if document is None else index.key(document))

    def _count_read(self, size):
        self.documents_read += 1
        self.bytes_read += size
        store = self.store
        if self.documents_read > store.max_tx_documents_read:
            raise TransactionFull("TooManyDocumentsRead", "Too many documents read in a single function "
                                  f"execution (limit: {store.max_tx_documents_read})")
        if self.bytes_read > store.max_tx_bytes_read:
            raise TransactionFull("TooManyBytesRead", "Too many bytes read in a single function execution "
                                  f"(limit: {store.max_tx_bytes_read} bytes)")

    # ------------------------------------------------------------ the end

    def changes(self):
        """The writes in log order: (tablet, internal id, before, document)."""
        out = [(tablet, internal, tablet.revision(internal), document)
               for (tablet, internal), document in self.writes.items()]
        out.sort(key=lambda change: (change[0].id, change[1]))
        return out

    def is_read_only(self):
        return not (self.writes or self.structure or self.system_rows)

    def conflict(self, writer):
        """The error when something that this transaction has read changed since it began, or None.

        Read are: ids looked up or taken, ranges of indexes whether or not a document was there, the list of all
        tables, the indexes of the tables used, for fivetran's rows those of all tables. What only reads commits
        without a check.
        """
        store, since = self.store, self.begin_ts
        if self.is_read_only():
            return None
        if self.first_ts != store.first_ts:    # emptied meanwhile
            return write_conflict()
        used = {place[0] for place in (*self.writes, *self.ranges, *self.scans)}
        changed = [store.structure[-1] if store.structure else 0, *(tablet.indexes_ts for tablet in used)]
        if self.reads_all_indexes:
            changed.append(store.indexes_ts)
        if max(changed) > since:
            return write_conflict()
        for at in range(store.log_from(since), len(store.log)):
            ts, tablet, internal, revision = store.log[at]
            if tablet is not None and self._has_read(ts, tablet, internal, revision):
                return write_conflict(tablet.name, self._who_wrote(ts, tablet, internal, writer))
        return None

    def _has_read(self, ts, tablet, internal, revision):
        if (tablet, internal) in self.ids_seen:
            return True
        before = tablet.revision(internal, ts - 1)
        documents = [found.doc for found in (before, revision) if found is not None and found.doc is not None]
        for (owner, index), ranges in self.ranges.items():
            if owner is tablet and any(ranges.holds(index.key(document)) for document in documents):
                return True
        return any(owner is tablet and any(map(is_read, documents)) for owner, is_read in self.scans)

    def _who_wrote(self, ts, tablet, internal, writer):
        other = self.store.writers.get(ts)
        if other is None:
            return None
        subject = "Another call to this mutation" if other == writer else f"A call to \"{other}\""
        return f"{subject} changed the document with ID \"{tablet.id_text(internal)}\""

    def commit(self, writer=None):
        """Makes it all visible; the timestamp, or None when it has written nothing."""
        store = self.store
        if self.is_read_only():
            return None
        changes = self.changes()
        ts = store.next_ts()
        if writer is not None:
            store.writers[ts] = writer
        for _ in range(self.system_rows):
            store.log_ts.append(ts)
            store.log.append((ts, None, None, None))
        for act in self.structure:
            act(ts)
        if self.structure:
            store.structure.append(ts)
            store.structure_version += 1
        for tablet, internal, before, document in changes:
            self._apply(ts, tablet, internal, before, document)
        for tablet, name, index in self.new_indexes:
            store.backfilling.pop(tablet.indexes.get(name), None)
            tablet.indexes[name] = index
            tablet.build_index(index)
            store.indexes_changed(ts, tablet)
            if not index.is_ready:
                store.backfilling[index] = tablet
        return ts

    def _apply(self, ts, tablet, internal, before, document):
        revision = Revision(ts, document)
        history = tablet.revisions.get(internal)
        if history is None:
            tablet.revisions[internal] = [revision]
            ids = tablet.sorted_ids
            if ids and internal < ids[-1]:
                tablet.is_sorted = False
            ids.append(internal)
        else:
            history.append(revision)
        if not tablet.commits or tablet.commits[-1] != ts:
            tablet.commits.append(ts)
        tablet.count += (document is not None) - (before is not None)
        for index in tablet.indexes.values():
            if before is not None:
                index.remove(internal, before.doc)
            if document is not None:
                index.add(internal, document)
        self.store.log_ts.append(ts)
        self.store.log.append((ts, tablet, internal, revision))
