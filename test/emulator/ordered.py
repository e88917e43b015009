"""The documents of a tablet in the order of an index, at any of its timestamps.

An entry is (key, internal id); the key is the bytes of the indexed values, by which Convex orders. Every revision
has left its entry, so that one sorted list serves all timestamps: whoever reads at one skips the entries that were
not so then. The list is made when a query first asks for it, and takes in what was committed since with each read.
The documents of a benchmark table have a sorted list of their own, which is none at all where they are made in order.

Convex: crates/common/src/index.rs, crates/common/src/query.rs (`IndexRange::compile`).
"""

import bisect
import heapq

import values
from tablets import MISSING, field_at, index_key

_MANY = 500    # so many new entries are sorted in rather than inserted one by one

BY_ID = (("_id",),)
BY_CREATION_TIME = (("_creationTime",),)


def key_of(values_of_fields):
    return b"".join(map(index_key, values_of_fields))


class _Positions:
    """Entries of a benchmark table that come in the order of the documents' numbers, made when looked at."""

    def __init__(self, base, name):
        self.base = base
        self.value_of = base.fields[name]

    def __len__(self):
        return self.base.count

    def __getitem__(self, i):
        return values.sort_key(self.value_of(i)), self.base.internal(i)


def _base_entries(base, fields):
    if base is None:
        return ()
    if fields in (BY_ID, BY_CREATION_TIME):
        return _Positions(base, fields[0][0])
    columns = [_column(base, path) for path in fields]
    entries = [(b"".join([key(i) for key in columns]), base.internal(i)) for i in range(base.count)]
    entries.sort()
    return entries


def _column(base, path):
    """i -> key of one field of document i; what is absent there is None in a base."""
    value_of = base.fields.get(path[0])
    if value_of is None:
        missing = index_key(MISSING)
        return lambda i: missing

    def key(i):
        value = value_of(i)
        return index_key(MISSING if value is None else field_at(value, path[1:]))
    return key


class Ordered:
    """Use under `Store.lock`."""

    def __init__(self, tablet, fields):
        self.tablet = tablet
        self.fields = fields
        self.base = _base_entries(tablet.base, fields)
        self.entries = []
        self.position = 0    # in the log: what lies before it has its entries

    def key(self, document):
        return key_of(field_at(document, path) for path in self.fields)

    def _catch_up(self, log):
        tablet = self.tablet
        new = {(self.key(revision.doc), internal) for _, changed, internal, revision in log[self.position:]
               if changed is tablet and revision.doc is not None}
        self.position = len(log)
        if len(new) > _MANY:
            self.entries = sorted(new.union(self.entries))
            return
        for entry in new:
            at = bisect.bisect_left(self.entries, entry)
            if at == len(self.entries) or self.entries[at] != entry:
                self.entries.insert(at, entry)

    def scan(self, log, ts, interval, is_descending):
        """Every (entry, live revision) of an interval, in order."""
        self._catch_up(log)
        stretches = [_stretch(entries, interval, is_descending) for entries in (self.base, self.entries)
                     if len(entries)]
        merged = stretches[0] if len(stretches) == 1 else heapq.merge(*stretches, reverse=is_descending)
        tablet, before = self.tablet, None
        for entry in merged:
            if entry == before:
                continue
            before = entry
            revision = tablet.revision(entry[1], ts)
            if revision is not None and (entry[1] not in tablet.revisions or self.key(revision.doc) == entry[0]):
                yield entry, revision


class Interval:
    """From `start` up to and without `end`; both are beginnings of entries, `end` None is the end of all."""

    def __init__(self, start=(b"",), end=None):
        self.start = start
        self.end = end

    def beyond(self, entry, is_descending):
        """What is left behind an entry."""
        if is_descending:
            return Interval(self.start, entry if self.end is None else min(entry, self.end))
        return Interval(max((entry[0], entry[1] + b"\0"), self.start), self.end)

    def up_to(self, entry, is_descending):
        """What lies before an entry, and the entry."""
        if is_descending:
            return Interval(max(entry, self.start), self.end)
        after = entry[0], entry[1] + b"\0"
        return Interval(self.start, after if self.end is None else min(after, self.end))


def _stretch(entries, interval, is_descending):
    first = bisect.bisect_left(entries, interval.start)
    last = len(entries) if interval.end is None else bisect.bisect_left(entries, interval.end)
    numbers = range(last - 1, first - 1, -1) if is_descending else range(first, last)
    return map(entries.__getitem__, numbers)


def ordered(tablet, fields):
    """The order of a tablet by these fields (paths), made once."""
    found = tablet.ordered.get(fields)
    if found is None:
        found = tablet.ordered[fields] = Ordered(tablet, fields)
    return found
