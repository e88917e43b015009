"""Random filters and ranges of indexes against a naive evaluation, which compares values and knows no keys."""

import functools
import json
import math
import random
import struct
import unittest

import convex_values
import values
from testing import QueryTest, clause, encode_filter

NAN = struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0]
KINDS = (type(None), int, float, bool, str, bytes, list, dict)


def compare(left, right):
    """The total order, value by value and not by the bytes of keys; what is absent is ()."""
    if left == () or right == ():
        return (left != ()) - (right != ())
    ranks = KINDS.index(type(left)), KINDS.index(type(right))
    if ranks[0] != ranks[1]:
        return ranks[0] - ranks[1]
    if type(left) is float:
        return order(*(total(number) for number in (left, right)))
    if type(left) is str:
        return order(left.encode(), right.encode())
    if type(left) in (list, dict):
        pairs = [list(value.items()) if type(value) is dict else [("", item) for item in value] for value in (left, right)]
        for (name, item), (other_name, other) in zip(*pairs):
            found = order(name, other_name) or compare(item, other)
            if found:
                return found
        return order(*map(len, pairs))
    return 0 if left is None else order(left, right)


def order(left, right):
    return (left > right) - (left < right)


def total(number):
    """IEEE's total order as integers."""
    bits, = struct.unpack(">q", struct.pack(">d", number))
    return bits if bits >= 0 else -(bits & (1 << 63) - 1) - 1


HOLDS = {"eq": lambda found: found == 0, "neq": lambda found: found != 0, "lt": lambda found: found < 0,
         "lte": lambda found: found <= 0, "gt": lambda found: found > 0, "gte": lambda found: found >= 0}


def random_value(rng, depth=0):
    kind = rng.randrange(8 if depth < 2 else 6)
    if kind == 0:
        return None
    if kind == 1:
        return rng.choice((0, 1, -1, 255, 256, -256, 1 << 40, -(1 << 40), (1 << 63) - 1, -(1 << 63)))
    if kind == 2:
        return rng.choice((0.0, -0.0, 1.0, -1.5, 1e300, -1e-300, math.inf, -math.inf, NAN, -NAN, 255.0))
    if kind == 3:
        return rng.random() < 0.5
    if kind == 4:
        return "".join(rng.choice(("a", "b", "\0", "é", "\U0001f600")) for _ in range(rng.randrange(3)))
    if kind == 5:
        return bytes(rng.choice((0, 1, 255)) for _ in range(rng.randrange(3)))
    if kind == 6:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(3))]
    return {name: random_value(rng, depth + 1) for name in ("a", "b") if rng.random() < 0.6}


def encoded(value):
    return json.loads(values.encode_value(value, values.ENCODED))


class Random(QueryTest):
    """Many filters and ranges against a naive evaluation over a dump."""

    @staticmethod
    def naive(documents, clauses):
        def value_at(document, path):
            for name in path.split("."):
                if type(document) is not dict or name not in document:
                    return ()
                document = document[name]
            return document

        def matches(document):
            return all(HOLDS[op](compare(value_at(document, field), value)) for field, op, value in clauses)
        return [document["n"] for document in documents if matches(document)]

    def test_filters_and_index_ranges(self):
        rng = random.Random(11)
        made = []
        for n in range(120):
            made.append({"n": float(n), **{name: random_value(rng) for name in ("x", "y") if rng.random() < 0.9}})
        self.insert("t", *map(encoded, made))
        self.declare(t=[("by_xy", "x", "y"), ("by_xa", "x.a")])
        dumped = [values.from_encoded(row) for row in self.control("dump?table=t")["documents"]]
        dumped.sort(key=lambda row: row["_creationTime"])
        absent = convex_values.UNDEFINED_PLACEHOLDER
        for _ in range(150):
            clauses = []
            for _ in range(rng.randrange(1, 3)):
                field = rng.choice(("x", "y", "x.a"))
                value = rng.choice(made).get(field, ()) if rng.random() < 0.7 else random_value(rng)
                clauses.append((field, rng.choice(tuple(HOLDS)), value))
            asked = [clause(field, op, absent if value == () else encoded(value)) for field, op, value in clauses]
            found = self.all_rows(filters=encode_filter(asked, order="asc"), items=rng.choice((7, 200)))
            self.assertEqual([row["n"] for row in found], self.naive(dumped, clauses), asked)
            self.check_range(rng, made, dumped)

    def check_range(self, rng, made, dumped):
        """One range over by_xy: the first field equal or in a range, then the second one."""
        absent, key = convex_values.UNDEFINED_PLACEHOLDER, functools.cmp_to_key(compare)
        sample = rng.choice(made)
        equal = [("x", sample.get("x", ()))] if rng.random() < 0.5 else []
        field = "y" if equal else "x"
        bounds = {}
        if rng.random() < 0.7:
            bounds["lower"] = rng.choice(("gte", "gt")), rng.choice(made).get(field, ())
        if rng.random() < 0.7:
            bounds["upper"] = rng.choice(("lte", "lt")), rng.choice(made).get(field, ())
        asked = [{"type": "indexEq", "enabled": True, "value": absent if value == () else encoded(value)}
                 for _, value in equal]
        asked.append({"type": "indexRange", "enabled": True})
        for side, (op, value) in bounds.items():
            asked[-1][side + "Op"] = op
            if value != ():
                asked[-1][side + "Value"] = encoded(value)

        def continues(found, value):
            """A string or bytes that goes on with NUL: its key begins with the other's."""
            zero = {str: "\0", bytes: b"\0"}.get(type(value))
            return zero is not None and type(found) is type(value) and found.startswith(value + zero)

        def holds(op, found, value):
            if continues(found, value):
                return op in ("lte", "gte")
            return HOLDS[op](compare(found, value))

        def is_inside(row):
            """What continues the first value lies behind all second ones."""
            if any(continues(row.get(name, ()), value) for name, value in equal):
                return "upper" not in bounds
            return (all(compare(row.get(name, ()), value) == 0 for name, value in equal)
                    and all(holds(op, row.get(field, ()), value) for op, value in bounds.values()))
        expected = [row for row in dumped if is_inside(row)]
        expected.sort(key=lambda row: (key(row.get("x", ())), key(row.get("y", ())), row["_creationTime"]))
        is_descending = rng.random() < 0.5
        found = self.all_rows(filters=encode_filter(order="desc" if is_descending else "asc",
                                                    index={"name": "by_xy", "clauses": asked}), items=rng.choice((3, 200)))
        self.assertEqual([row["n"] for row in found], [row["n"] for row in expected][::-1 if is_descending else 1], asked)


if __name__ == "__main__":
    unittest.main()
