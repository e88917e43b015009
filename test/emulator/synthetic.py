"""Benchmark tables: document i is a pure function of i, made when it is asked for.

The formula, for i = 0, 1, 2, ... (`/` is exact division, all in float64):

    _creationTime  1750000000000 + i / 4
    _id            table number and internal id: (i + 1) * 2^40 as 8 bytes, then
                   (i * 11400714819323198485) mod 2^64 as 8 bytes, both big-endian; so ids ascend with i
    active         true when i % 3 = 0                                    boolean
    amount         (i % 100003) / 8                                       float64
    count          7 * i - 1000                                           int64
    name           "Item " followed by i in decimal                       string
    note           "note " followed by i in decimal; only when i % 4 = 0  optional string
    parent         the `_id` of document i % 1000                         id

A wide document has these too:

    address        {"city": "City " i%100, "street": i " Long Road", "zip": i % 100000 as float64}
    body           900 times the letter number i % 26                     string
    checksum       (i * 2654435761) mod 2^32 as 4 bytes, big-endian       bytes
    scores         [i / 2, i / 4, i / 8, -i / 16]                         array of float64
    tags           ["tag" i%7, "tag" i%11, "group" i%13]                  array of string
    title          "A longer title that tells item i apart from the others" (i in decimal)
"""

import struct

import values
from tablets import Revision

_STEP = 1 << 40
_MIX = 11400714819323198485
_FAMILIES = 1000
_CREATED_MS = 1750000000000


def internal_id(i):
    return struct.pack(">QQ", (i + 1) * _STEP, i * _MIX & 0xFFFFFFFFFFFFFFFF)


def _address(i):
    return {"city": f"City {i % 100}", "street": f"{i} Long Road", "zip": float(i % 100000)}


def _narrow_fields(parents, number):
    """name -> function of i that gives its value, or None where it is absent; in byte order."""
    return {
        "_creationTime": lambda i: _CREATED_MS + i / 4,
        "_id": lambda i: values.encode_id(number, internal_id(i)),
        "active": lambda i: i % 3 == 0,
        "amount": lambda i: (i % 100003) / 8,
        "count": lambda i: 7 * i - 1000,
        "name": lambda i: f"Item {i}",
        "note": lambda i: None if i % 4 else f"note {i}",
        "parent": lambda i: parents[i % _FAMILIES],
    }


def _wide_fields(parents, number):
    fields = _narrow_fields(parents, number)
    fields.update({
        "address": _address,
        "body": lambda i: chr(97 + i % 26) * 900,
        "checksum": lambda i: struct.pack(">I", i * 2654435761 & 0xFFFFFFFF),
        "scores": lambda i: [i / 2, i / 4, i / 8, -i / 16],
        "tags": lambda i: [f"tag{i % 7}", f"tag{i % 11}", f"group{i % 13}"],
        "title": lambda i: f"A longer title that tells item {i} apart from the others",
    })
    return {name: fields[name] for name in sorted(fields)}


class Base:
    """The documents 0 .. count - 1 of one benchmark table, all written at `ts`."""

    def __init__(self, number, count, is_wide, ts):
        self.number = number
        self.count = count
        self.ts = ts
        parents = [values.encode_id(number, internal_id(i)) for i in range(_FAMILIES)]
        self.fields = (_wide_fields if is_wide else _narrow_fields)(parents, number)

    def internal(self, i):
        return internal_id(i)

    def position_after(self, internal):
        """The number of the first document beyond an internal id (None: the first of all)."""
        if internal is None:
            return 0
        near = max(0, int.from_bytes(internal[:8], "big") // _STEP - 1)
        while near < self.count and internal_id(near) <= internal:
            near += 1
        return min(near, self.count)

    def index_of(self, internal):
        i = int.from_bytes(internal[:8], "big") // _STEP - 1
        return i if 0 <= i < self.count and internal_id(i) == internal else None

    def document(self, i):
        made = ((name, value_of(i)) for name, value_of in self.fields.items())
        return {name: value for name, value in made if value is not None}

    def revision(self, internal):
        i = self.index_of(internal)
        return None if i is None else Revision(self.ts, self.document(i))

    def field_texts(self, first, last, columns, value_format):
        """The member texts (no braces) of documents first .. last - 1, a field at a time for speed."""
        named = []
        for name, value_of in self.fields.items():
            if columns is not None and not columns[0].get(name, columns[1]):
                continue
            named.append(self._column(name, value_of, range(first, last), value_format))
        return ["".join(row)[:-1] for row in zip(*named)]

    def _column(self, name, value_of, numbers, value_format):
        key = values.quote(name) + ":"
        if name == "_id":
            return [f'{key}"{value_of(i)}",' for i in numbers]
        if name in ("name", "parent", "body", "title"):    # plain ASCII without a character to escape
            return [f'{key}"{value_of(i)}",' for i in numbers]
        if name == "note":
            return ["" if i % 4 else f'{key}"note {i}",' for i in numbers]
        encode = values.encode_value
        return [f"{key}{encode(value_of(i), value_format)}," for i in numbers]


def create(store, count, is_wide):
    """Adds the table `bench` or `bench_wide` with `count` documents, in constant time.

    Their revisions are not in the log: the retention floor is put above them.
    """
    name = "bench_wide" if is_wide else "bench"
    with store.lock:
        tx = store.transaction()
        tablet = tx.table("", name, create=True)
        ts = tx.commit()
        tablet.base = Base(tablet.number, count, is_wide, ts)
        tablet.count = count
        tablet.commits.append(ts)
        after = store.transaction()
        after.system_rows = 1
        store.retention_floor = after.commit()
