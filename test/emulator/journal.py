"""What the emulator was asked, oldest first, within bounds of number and memory."""

import itertools
import json
import threading
from collections import deque

MAX_BODY_BYTES = 256 << 20
RAW_BODIES = ("/api/import", "/api/import/upload_part")    # files; not kept


class Entry:
    __slots__ = ("n", "method", "path", "query", "headers", "body", "connection", "status", "bytes", "fault",
                 "walk_miss", "snapshot", "commits", "documents_read", "bytes_read")

    def __init__(self, n, request):
        self.n = n
        self.method = request.method
        self.path = request.path
        self.query = request.query
        self.headers = request.headers
        self.body = b"" if request.path in RAW_BODIES else request.body
        self.connection = request.connection
        self.status = None
        self.bytes = 0
        self.fault = None
        self.walk_miss = False
        self.snapshot = None
        self.commits = []    # timestamps of the transactions that a streaming import made
        self.documents_read = self.bytes_read = 0    # by functions, before their filters

    def add_commit(self, ts):
        """A transaction that changed nothing has none."""
        if ts is not None:
            self.commits.append(ts)

    def add_cost(self, cost):
        self.documents_read += cost.documents
        self.bytes_read += cost.bytes

    def describe(self):
        try:
            body = json.loads(self.body)
        except ValueError:
            body = None
        return {"n": self.n, "method": self.method, "path": self.path, "query": self.query,
                "headers": self.headers, "body": body, "status": self.status, "bytes": self.bytes,
                "fault": self.fault, "walk_miss": self.walk_miss, "snapshot": self.snapshot,
                "connection": self.connection, "commits": self.commits, "documents_read": self.documents_read,
                "bytes_read": self.bytes_read}


class Journal:
    def __init__(self, limit):
        self.lock = threading.Lock()
        self.entries = deque()
        self.limit = limit
        self.body_bytes = 0
        self.numbers = itertools.count(1)

    def begin(self, request):
        request.entry = entry = Entry(next(self.numbers), request)
        with self.lock:
            self.entries.append(entry)
            self.body_bytes += len(entry.body)
            while self.entries and (len(self.entries) > self.limit or self.body_bytes > MAX_BODY_BYTES):
                self.body_bytes -= len(self.entries.popleft().body)
        return entry

    def finish(self, request, plan, response):
        """Before a byte is sent, so that a client that has its answer finds the entry complete."""
        entry = request.entry
        entry.status = response.status
        entry.bytes = response.length()
        if plan:
            entry.fault = "+".join(fault.action for fault in plan)

    def describe(self, path=None):
        with self.lock:
            entries = list(self.entries)
        return [entry.describe() for entry in entries if path is None or entry.path == path]

    def clear(self):
        with self.lock:
            self.entries.clear()
            self.body_bytes = 0
            self.numbers = itertools.count(1)
