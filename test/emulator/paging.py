"""One page of a query: how far it reads, what its cursors say, when it asks to be split.

A cursor is a place in an index and the mark of the query that it belongs to; it holds at any timestamp. A page ends
when it is full, when its range is read to the end, or when it has read so much that it must be split: then it may
hold little or nothing although more follows.

Convex: crates/database/src/query/{mod,index_range,filter}.rs, crates/isolate/src/environment/udf/async_syscall.rs.
"""

import base64
import collections
import hashlib
import hmac
import itertools
import json

import filters
import ordered
from convex_values import number_text
from function_errors import Thrown, invalid_cursor

MAX_ITEMS = 32_000
FETCH_FILTERED = 100     # rows that a filter takes at once from the index
FETCH_MOST = 1024
SOFT_PAGE = 8192 * 3 // 4
END = None               # the place behind everything


class Query:
    """What is asked of a table; `index` is None for all documents by the time of creation."""

    def __init__(self, table, order, index=None, expression=None):
        self.table = table
        self.order = order
        self.index = index
        self.expression = expression

    def fingerprint(self):
        index = self.index and [self.index.name, self.index.fields, self.index.comparisons]
        return hashlib.sha256(json.dumps([self.table, self.order, index, self.expression]).encode()).hexdigest()[:32]


class Cursors:
    """Texts that only this deployment can read."""

    def __init__(self, secret):
        self.secret = secret

    def text(self, fingerprint, place):
        """`place` is an entry of an index, or END."""
        inner = json.dumps([fingerprint, place and [part.hex() for part in place]]).encode()
        return base64.urlsafe_b64encode(self._mark(inner) + inner).decode().rstrip("=")

    def place(self, fingerprint, text):
        try:
            data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            data = b""
        if not hmac.compare_digest(data[:16], self._mark(data[16:])):
            raise Thrown("Failed to parse cursor")
        of_query, place = json.loads(data[16:])
        if of_query != fingerprint:
            raise invalid_cursor()
        return place and tuple(map(bytes.fromhex, place))

    def _mark(self, inner):
        return hashlib.blake2b(inner, key=self.secret, digest_size=16).digest()


class Scan:
    """The rows of one interval, fetched in portions and counted as they are taken."""

    def __init__(self, reading, tablet, query, interval):
        order = ordered.ordered(tablet, _paths(query))
        self.reading = reading
        self.rows = order.scan(reading.store.log, reading.ts, interval, query.order == "desc")
        self.fetched = collections.deque()
        self.fetched_count = self.bytes = 0
        self.is_over = False
        self.taken = []    # the entries of rows taken

    def fetch(self, count):
        portion = list(itertools.islice(self.rows, count))
        self.fetched_count += len(portion)
        self.is_over = len(portion) < count
        self.fetched.extend(portion)

    def take(self):
        entry, revision = self.fetched.popleft()
        self.taken.append(entry)
        self.bytes += self.reading.read(revision.doc)
        return revision


def _paths(query):
    if query.index is None:
        return ordered.BY_CREATION_TIME
    return tuple(tuple(field.split(".")) for field in query.index.fields)


def page(reading, tablet, query, options):
    """The result of `paginate` with revisions in it; `tablet` None is a table that is not there."""
    items = _whole(options["numItems"])
    test = filters.predicate(query.expression) if query.expression else None
    _check_range(items)
    mark = query.fingerprint()
    cursors = reading.cursors
    start, end = (None if text is None else (cursors.place(mark, text),)
                  for text in (options.get("cursor"), options.get("endCursor")))
    is_descending = query.order == "desc"
    interval = query.index.interval() if query.index else ordered.Interval()
    is_empty = tablet is None or start == (END,)
    if not is_empty and start is not None:
        interval = interval.beyond(start[0], is_descending)
    if not is_empty and end not in (None, (END,)):
        interval = interval.up_to(end[0], is_descending)
    scan = None if is_empty else Scan(reading, tablet, query, interval)
    found, status, is_done = [], None, is_empty
    while not is_done and (len(found) < items or end is not None):
        portion = FETCH_FILTERED if query.expression else min(items - len(found), FETCH_MOST)
        status, is_done = _advance(scan, reading.settings, max(1, portion), end is not None)
        if status is not None:
            break
        if scan.fetched:
            revision = scan.take()
            if test is None or test(revision.doc):
                found.append(revision)
    if end is not None:
        place, is_done = end[0], end[0] is END
    else:
        place = END if is_done else scan.taken[-1]
    return {"continueCursor": cursors.text(mark, place), "isDone": is_done, "page": found,
            "pageStatus": status or _recommended(scan, reading.settings, len(found)),
            "splitCursor": _middle(cursors, mark, scan)}


def _advance(scan, settings, portion, has_end):
    """Makes sure that a row has been fetched: (why the page must end, whether the range has)"""
    if not has_end and scan.bytes >= settings.max_page_bytes:
        return "SplitRequired", False
    if scan.fetched:
        return None, False
    if scan.is_over:
        return None, True
    if not has_end:
        portion = min(portion, settings.max_page_rows - scan.fetched_count)
        if portion <= 0:
            return "SplitRequired", False
    scan.fetch(portion)
    return None, False


def _recommended(scan, settings, found):
    if scan is not None and (scan.fetched_count > settings.max_page_rows * 3 // 4
                             or scan.bytes > settings.max_page_bytes * 3 // 4 or found > SOFT_PAGE):
        return "SplitRecommended"
    return None


def _middle(cursors, mark, scan):
    taken = scan.taken if scan is not None else ()
    return cursors.text(mark, taken[len(taken) // 2]) if len(taken) > 2 else None


def _whole(number):
    """JavaScript refuses negative numbers, the server those that are no integers."""
    if number < 0:
        raise Thrown(f"`options.numItems` must be a positive number. Received `{number_text(number)}`.")
    if number - number != 0 or number != int(number):
        raise Thrown(f"Invalid arguments for `queryPage`: invalid value: `{number}`, expected usize")
    return int(number)


def _check_range(items):
    if items == 0:
        raise Thrown("Must request at least 1 document while paginating")
    if items > MAX_ITEMS:
        raise Thrown(f"Requested too many items: {items}")
