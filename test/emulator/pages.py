"""The pages of list_snapshot and document_deltas, as bytes, each built once.

A snapshot page depends only on what its tablet looked like at the snapshot (its epoch), the place in it,
the fields, the format and the page limit; the rest of the answer is a short tail. A delta page depends on
its stretch of the log and on what serves the tables now. Both are kept in one cache bounded by bytes.

Convex: crates/database/src/database.rs (`list_snapshot`, `document_deltas`).
"""

import bisect
import functools
import json
from collections import OrderedDict

import values
from errors import ApiError, bad_request
from tablets import ACTIVE, HIDDEN


class PageCache:
    """Least recently used goes first; `max_bytes` of page bytes."""

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
        self.size = 0
        self.pages = OrderedDict()

    def get(self, key):
        page = self.pages.get(key)
        if page is not None:
            self.pages.move_to_end(key)
        return page

    def put(self, key, page):
        self.pages[key] = page
        self.size += len(page[0])
        while self.size > self.max_bytes and len(self.pages) > 1:
            _, old = self.pages.popitem(last=False)
            self.size -= len(old[0])

    def clear(self):
        self.pages.clear()
        self.size = 0


class Walks:
    """Convex keeps one table iterator of list_snapshot warm; whatever else asks makes a new one."""

    def __init__(self):
        self.expected = None

    def is_miss(self, key):
        miss = key != self.expected
        self.expected = None
        return miss

    def expect(self, key):
        self.expected = key


class Pages:
    def __init__(self, store, page_limit, delta_limit, cache_bytes):
        self.store = store
        self.page_limit = page_limit
        self.delta_limit = delta_limit
        self.cache = PageCache(cache_bytes)
        self.walks = Walks()
        self.selected = {}    # (structure version, epoch, selection) -> tablets in order

    def clear(self):
        self.cache.clear()
        self.selected.clear()
        self.walks.expected = None

    # ------------------------------------------------------------ list_snapshot

    def resolve_snapshot(self, snapshot):
        head = self.store.head()
        if snapshot is None:
            return head
        if snapshot > head:
            raise bad_request("SnapshotTooNew", f"Snapshot value {snapshot} is in the future.")
        if head - snapshot > self.store.snapshot_max_age_ns:
            raise bad_request("SnapshotTooOld", f"Snapshot value {snapshot} is too far in the past.")
        floor = self.store.floor()
        if floor is not None and snapshot < floor:
            raise ApiError(503, "InternalServerError",
                           "Your request couldn't be completed. Try again later.")
        return snapshot

    def snapshot_page(self, snapshot, cursor, selection, value_format):
        """The answer as a list of bytes, the snapshot, and whether the walk is a new one.

        `cursor` is (tablet id, internal id) or None.
        """
        with self.store.lock:
            snapshot = self.resolve_snapshot(snapshot)
            tablets = self._selected(snapshot, selection)
            if cursor is not None:
                tablets = [tablet for tablet in tablets if tablet.id >= cursor[0]]
            if not tablets:
                tail = b'],"snapshot":%d,"cursor":null,"hasMore":false}' % snapshot
                return [b'{"values":[', tail], snapshot, False
            order = tuple(tablet.id for tablet in tablets)
            miss = self.walks.is_miss((snapshot, order, cursor))
            tablet = tablets[0]
            body, last, next_cursor = self._table_page(tablet, snapshot, cursor and cursor[1], selection,
                                                       value_format)
            if last is not None:
                self.walks.expect((snapshot, order, (tablet.id, last)))
            elif len(tablets) > 1:
                self.walks.expect((snapshot, order[1:], (order[1], bytes(16))))
                next_cursor = _cursor_text(tablets[1].text, values.MIN_ID)
            else:
                tail = b'],"snapshot":%d,"cursor":null,"hasMore":false}' % snapshot
                return [b'{"values":[', body, tail], snapshot, miss
            tail = b'],"snapshot":%d,"cursor":%s,"hasMore":true}' % (snapshot, next_cursor)
            return [b'{"values":[', body, tail], snapshot, miss

    def _selected(self, snapshot, selection):
        epoch = self.store.structure_epoch(snapshot)
        key = self.store.structure_version, epoch, selection.key
        tablets = self.selected.get(key)
        if tablets is None:
            if len(self.selected) > 1000:
                self.selected.clear()
            tablets = self.selected[key] = [tablet for tablet in self.store.tablets_at(snapshot)
                                            if selection.includes(tablet.component, tablet.name)]
        return tablets

    def _table_page(self, tablet, snapshot, after, selection, value_format):
        """(bytes between the brackets, internal id of the last document, cursor); None, None at the end"""
        columns = selection.columns(tablet.component, tablet.name)
        if after == bytes(16):
            after = None
        key = (tablet.id, tablet.epoch(snapshot), after, columns and repr(columns), value_format,
               self.page_limit)
        page = self.cache.get(key)
        if page is None:
            body, last = self._build_page(tablet, snapshot, after, columns, value_format)
            cursor = None if last is None else _cursor_text(tablet.text, tablet.id_text(last))
            page = body, last, cursor
            self.cache.put(key, page)
        return page

    def _build_page(self, tablet, snapshot, after, columns, value_format):
        limit = self.page_limit
        head = _row_head(tablet)
        if tablet.base is not None and not tablet.revisions and snapshot >= tablet.base.ts:
            base = tablet.base
            first = base.position_after(after)
            end = min(first + limit, base.count)
            head += f"{base.ts},"
            texts = [head + text + "}" for text in base.field_texts(first, end, columns, value_format)]
            last = base.internal(end - 1) if end - first == limit else None
            return ",".join(texts).encode(), last
        texts = []
        for internal, revision in tablet.read(snapshot, after, limit):
            texts.append(f"{head}{revision.ts},{_fields(revision, columns, value_format)}}}")
        last = internal if len(texts) == limit else None
        return ",".join(texts).encode(), last

    # ------------------------------------------------------------ document_deltas

    def delta_page(self, cursor, selection, value_format):
        """The answer as a list of bytes. Every row of the log counts, shown or not."""
        store = self.store
        with store.lock:
            head = store.head()
            floor = store.floor()
            if floor is not None and cursor + 1 < floor:
                raise bad_request(
                    "InvalidWindowToReadDocuments",
                    f"Trying to synchronize from timestamp {cursor + 1}, which is older than the database's "
                    "retention window. Please perform a full sync.")
            first = store.log_from(cursor)
            new_cursor, end = head, len(store.log)
            if first + self.delta_limit <= end:
                new_cursor = store.log_ts[first + self.delta_limit - 1]
                end = bisect.bisect_right(store.log_ts, new_cursor)
            has_more = end < len(store.log)
            key = "deltas", store.structure_version, first, end, selection.key, value_format
            page = self.cache.get(key)
            if page is None:
                page = self._build_deltas(first, end, selection, value_format), None
                self.cache.put(key, page)
        tail = b'],"cursor":%d,"hasMore":%s}' % (new_cursor, b"true" if has_more else b"false")
        return [b'{"values":[', page[0], tail]

    def _build_deltas(self, first, end, selection, value_format):
        """Rows as the present table mapping names them: dropped tablets vanish, hidden ones show."""
        texts = []
        known = {}
        for ts, tablet, internal, revision in self.store.log[first:end]:
            if tablet is None:
                continue
            if tablet not in known:
                shown = (tablet.state in (ACTIVE, HIDDEN)
                         and selection.includes(tablet.component, tablet.name))
                known[tablet] = shown and (_row_head(tablet),
                                           selection.columns(tablet.component, tablet.name))
            if not known[tablet]:
                continue
            head, columns = known[tablet]
            if revision.doc is None:
                texts.append(f'{head}{ts},"_deleted":true,"_id":"{tablet.id_text(internal)}"}}')
            else:
                texts.append(f'{head}{ts},"_deleted":false,{_fields(revision, columns, value_format)}}}')
        return ",".join(texts).encode()


def _row_head(tablet):
    return f'{{"_component":{values.quote(tablet.component)},"_table":{values.quote(tablet.name)},"_ts":'


def _fields(revision, columns, value_format):
    if columns is None:
        return revision.fields_text(value_format)
    fields, others = columns
    kept = {name: value for name, value in revision.doc.items() if fields.get(name, others)}
    return values.encode_fields(kept, value_format)


def _cursor_text(tablet, document_id):
    """The cursor as a JSON string that holds JSON."""
    inner = json.dumps({"tablet": tablet, "id": document_id}, separators=(",", ":"))
    return json.dumps(inner).encode()


@functools.lru_cache(maxsize=10_000)
def parse_cursor(text):
    """The cursor of list_snapshot -> (tablet id, internal id)."""
    try:
        cursor = values.parse_json(text.encode())
        tablet = values.parse_tablet(cursor["tablet"])
        decoded = values.decode_id(cursor["id"])
        if tablet is None or decoded is None:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise bad_request("InvalidListSnapshotCursor",
                          "Invalid value for the `cursor` argument of list_snapshot. Use a `cursor` returned "
                          "by a previous list_snapshot call, and treat it as an opaque value.") from None
    return tablet, decoded[1]
