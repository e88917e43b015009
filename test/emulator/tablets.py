"""Tablets: the revisions of the documents of one incarnation of a table, its indexes, its component.

A table name is served by one tablet at a time; a clear or an import puts another in its place. A tablet keeps
every revision, so that it can be read at any past timestamp; its past never changes.

Convex: crates/value/src/table_mapping.rs, crates/database/src.
"""

import bisect
import math

import values

FIRST_TABLE_NUMBER = 10001
ACTIVE, HIDDEN, DELETED = "active", "hidden", "deleted"


class Revision:
    """One state of a document from `ts` on; `doc` is None after a delete."""

    __slots__ = ("ts", "doc", "encoded")

    def __init__(self, ts, doc):
        self.ts = ts
        self.doc = doc
        self.encoded = None

    def fields_text(self, value_format):
        """All members as JSON text without braces; made once a format."""
        if self.encoded is None:
            self.encoded = [None, None, None]
        text = self.encoded[value_format]
        if text is None:
            text = self.encoded[value_format] = values.encode_fields(self.doc, value_format)
        return text


class Index:
    """A hidden index of an import route: key values -> internal ids. Fields are paths (tuples)."""

    def __init__(self, fields, made_ns):
        self.fields = fields
        self.made_ns = made_ns
        self.polls = 0
        self.is_ready = False
        self.ids = {}
        self.long_keys = set()    # those that a shorter one may begin

    def key(self, document):
        return tuple(index_key(field_at(document, path)) for path in self.fields)

    def add(self, internal, document):
        key = self.key(document)
        self.ids.setdefault(key, set()).add(internal)
        if goes_on(key):
            self.long_keys.add(key)

    def remove(self, internal, document):
        key = self.key(document)
        ids = self.ids.get(key)
        if ids is not None:
            ids.discard(internal)
            if not ids:
                del self.ids[key]
                self.long_keys.discard(key)


STRING_TAG = 0x10    # strings, bytes, arrays and objects: whatever has no fixed length

MISSING = object()   # an absent field, which an index keeps apart from null


def field_at(document, path):
    for name in path:
        if type(document) is not dict or name not in document:
            return MISSING
        document = document[name]
    return document


def index_key(value):
    """Equal exactly when Convex's indexes hold the values equal."""
    return b"\x01" if value is MISSING else values.sort_key(value)


def goes_on(key):
    """Whether the bytes of another key may be the beginning of this one's.

    A range is a prefix of bytes, and a NUL in a string is written as the end of a string and one more byte: so a
    look-up of "a" finds "a\\0b", too.
    """
    return any(part[0] >= STRING_TAG and b"\0\xff" in part for part in key)


class Tablet:
    """One physical incarnation of a table."""

    def __init__(self, tablet_id, number, component, name):
        self.id = tablet_id
        self.text = values.tablet_text(tablet_id)
        self.number = number
        self.component = component
        self.name = name
        self.state = None
        self.history = []    # (ts, state)
        self.commits = []    # timestamps at which a document changed
        self.revisions = {}  # internal id -> [Revision], oldest first
        self.sorted_ids = []
        self.is_sorted = True
        self.base = None     # a synthetic.Base: documents that are a function of their position
        self.count = 0       # live documents now
        self.indexes = {}    # name -> Index
        self.indexes_ts = 0  # when they last changed
        self.ordered = {}    # fields -> ordered.Ordered, once a query has asked for this order
        self.shape = None    # (epoch, shapes.Shape) once somebody asked

    def set_state(self, ts, state):
        self.state = state
        self.history.append((ts, state))

    def state_at(self, ts):
        state = None
        for since, then in self.history:
            if since > ts:
                break
            state = then
        return state

    def epoch(self, ts):
        """How many transactions had changed this tablet at a timestamp: equal epochs read alike."""
        return bisect.bisect_right(self.commits, ts)

    def ids(self):
        if not self.is_sorted:
            self.sorted_ids.sort()
            self.is_sorted = True
        return self.sorted_ids

    def id_text(self, internal):
        return values.encode_id(self.number, internal)

    def revision(self, internal, ts=None):
        """The live revision of a document at a timestamp (None: now), or None."""
        for revision in reversed(self.revisions.get(internal, ())):
            if ts is None or revision.ts <= ts:
                return revision if revision.doc is not None else None
        if self.base is not None and (ts is None or ts >= self.base.ts):
            return self.base.revision(internal)
        return None

    def read(self, ts, after, limit):
        """Up to `limit` (internal id, live revision) in id order beyond `after` (None: from the start)."""
        ids = self.ids()
        position = 0 if after is None else bisect.bisect_right(ids, after)
        if self.base is not None and ts >= self.base.ts:
            yield from self._read_over_base(ts, after, limit, ids, position)
            return
        revisions = self.revisions
        for at in range(position, len(ids)):
            internal = ids[at]
            history = revisions[internal]
            revision = history[-1]
            if revision.ts > ts:
                revision = self.revision(internal, ts)
                if revision is None:
                    continue
            elif revision.doc is None:
                continue
            yield internal, revision
            limit -= 1
            if limit == 0:
                return

    def _read_over_base(self, ts, after, limit, ids, position):
        """Merges the documents of the base with what transactions wrote over them."""
        base = self.base
        index = base.position_after(after)
        while limit > 0 and (index < base.count or position < len(ids)):
            lower = base.internal(index) if index < base.count else None
            upper = ids[position] if position < len(ids) else None
            internal = lower if upper is None or (lower is not None and lower < upper) else upper
            index += internal == lower
            position += internal == upper
            revision = self.revision(internal, ts)
            if revision is not None:
                yield internal, revision
                limit -= 1

    def live(self):
        """Every (internal id, live revision) now."""
        return self.read(math.inf, None, -1) if self.base is None else self.read(math.inf, None, 1 << 62)

    def build_index(self, index):
        index.ids.clear()
        index.long_keys.clear()
        for internal, revision in self.live():
            index.add(internal, revision.doc)


class Component:
    def __init__(self, path):
        self.path = path
        self.next_number = FIRST_TABLE_NUMBER
        self.tables = {}    # name -> active Tablet

    def name_of_number(self, number):
        for tablet in self.tables.values():
            if tablet.number == number:
                return tablet.name
        return None
