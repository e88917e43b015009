"""A peer that speaks to libcurl as it likes: sockets, requests, and what a good deployment would answer.

Each line of the table (lines.py) has a port of its own for each use, so that lines can run side by side and
their requests are counted apart.
"""

import base64
import contextlib
import json
import re
import selectors
import socket
import struct
import threading
import time

HEAD = 1_787_000_001_000_000_000
ROW_TS = HEAD - 1_000_000_000

COLUMNS = "/api/get_table_column_names"
SCHEMAS = "/api/json_schemas"
DECLARED = "/api/streaming_import/get_schema"
SNAPSHOT = "/api/list_snapshot"
DELTAS = "/api/document_deltas"
WRITE = "/api/streaming_import/apply_fivetran_operations"
QUERY_TS = "/api/query_ts"
QUESTION = "/api/query_at_ts"


class Gone(Exception):
    """The client has hung up, or the line has had its say."""


# ---------------------------------------------------------------- what a good deployment says

def row_id(n):
    return "j57%029d" % n


def document(n=1, **members):
    doc = {"_component": "", "_table": "users", "_ts": ROW_TS, "_creationTime": 1.5, "_id": row_id(n),
           "id": {"$integer": base64.b64encode(struct.pack("<q", n)).decode()}, "name": "Eve"}
    doc.update(members)
    return {name: value for name, value in doc.items() if value is not ...}


def change(n=1, ts=HEAD + 1, **members):
    return document(n, **{"_ts": ts, "_deleted": False, **members})


def page(*docs, snapshot=HEAD, cursor=None):
    return {"values": list(docs), "snapshot": snapshot, "cursor": cursor, "hasMore": cursor is not None}


def deltas(*docs, cursor=HEAD + 10, more=False):
    return {"values": list(docs), "cursor": cursor, "hasMore": more}


def columns(*tables):
    return {"byComponent": {"": [{"name": name, "columns": list(fields)} for name, fields in tables]}}


def schema(**fields):
    return {"type": "object", "additionalProperties": False, "properties": fields, "required": list(fields),
            "$schema": "http://json-schema.org/draft-07/schema#"}


def text(value):
    """Bytes stay as they are; everything else becomes JSON without spaces, as Convex sends it."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, separators=(",", ":")).encode()


class Good:
    """What the rest of the deployment answers while one route misbehaves."""

    def __init__(self):
        self.written = []

    def tell_news(self):
        ts = HEAD + 1000 + len(self.written)
        self.written.append(change(2, ts=ts, name="News"))
        return ts

    def answer(self, request):
        route = request.path
        if route == SNAPSHOT:
            asked = request.json.get("snapshot", HEAD)
            if request.json["selection"] == {"_other": "excluded"}:
                return page(snapshot=asked)
            return page(*[document()] * ("cursor" not in request.json), snapshot=asked)
        if route == DELTAS:
            asked = request.json["cursor"]
            news = [doc for doc in self.written if doc["_ts"] > asked]
            return deltas(*news, cursor=max([asked, HEAD + 10] + [doc["_ts"] for doc in news]))
        if route == COLUMNS:
            return columns(("users", ("_creationTime", "_id", "id", "name")))
        if route == SCHEMAS:
            return {"": {"users": schema(_creationTime={"type": "number"}, _id={"type": "string"},
                                         id={"$description": "int64", "type": "object",
                                             "properties": {"$integer": {"type": "string"}}},
                                         name={"type": "string"})}}
        if route == QUERY_TS:
            ts = max([HEAD + 10] + [doc["_ts"] for doc in self.written])
            return {"ts": base64.b64encode(struct.pack("<Q", ts)).decode()}
        if route == WRITE:
            row = {}
            for operation in request.json:
                row.update(operation["row"])
            self.written.append({**change(1, ts=HEAD + 20 + len(self.written)), **row})
            return b""
        return None


# ---------------------------------------------------------------- sockets

class Request:
    def __init__(self, method, path, body):
        self.method = method
        self.path = path
        self.body = body
        self.json = json.loads(body) if body.startswith((b"{", b"[")) else {}


class Line:
    """A client's connection, and what a misbehaviour may do to it."""

    def __init__(self, sock):
        self.sock = sock
        self.rest = b""

    def read_request(self):
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        length = re.search(rb"^content-length: *(\d+)", head, re.I | re.M)
        length = int(length[1]) if length else 0
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        self.key = re.search(rb"^authorization: *Convex +([^\r]*)", head, re.I | re.M)
        return Request(method, path.split("?")[0], body)

    def _more(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise Gone
        self.rest += data

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, status=200, body=b"", headers=""):
        body = text(body)
        self.send(b"HTTP/1.1 %d X\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                  % (status, headers.encode(), len(body)) + body)

    def begin(self, headers=""):
        """A header block without a length."""
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + headers.encode() + b"\r\n")

    def forever(self, data, every=0.0):
        while True:
            self.send(data)
            if every:
                time.sleep(every)

    def silence(self):
        """Until the client goes away."""
        while self.sock.recv(1 << 16):
            pass
        raise Gone

    def close(self):
        raise Gone

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone


class Port:
    """One line of the table in one use."""

    def __init__(self, entry, use, is_sane=False):
        self.entry = entry
        self.use = use
        self.is_sane = is_sane
        self.good = Good()
        self.nth = {}             # requests by route
        self.lock = threading.Lock()
        self.open = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=50)

    @property
    def number(self):
        return self.listener.getsockname()[1]

    def count(self, route):
        with self.lock:
            self.nth[route] = self.nth.get(route, 0) + 1
            return self.nth[route] - 1

    def turn(self, is_sane):
        """Behave so from now on; gives the requests since the last time. A greeting wants new connections."""
        with self.lock:
            self.is_sane = is_sane
            counts, self.nth = self.nth, {}
            open_ones = list(self.open) if self.entry.greet else []
        for sock in open_ones:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        return sum(counts.values())

    def serve(self, sock):
        line = Line(sock)
        self.open.add(sock)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.entry.greet and not self.is_sane:
                self.count("connection")
                self.entry.greet(line)
            while True:
                request = line.read_request()
                nth = self.count(request.path)
                rule = None if self.is_sane else self.entry.rules_of(self.use).get(request.path)
                if callable(rule):
                    answer = rule(line, request, nth)
                else:
                    answer = rule
                if answer is None:
                    answer = self.good.answer(request)
                    if answer is None:
                        line.answer(404)
                        continue
                if answer is not ...:
                    line.answer(200, answer)
        except (Gone, OSError, ValueError):
            pass
        finally:
            self.open.discard(sock)
            sock.close()


def serve(ports):
    """Accept for all ports in a thread of its own, and serve each connection in another."""
    selector = selectors.DefaultSelector()
    for port in ports:
        selector.register(port.listener, selectors.EVENT_READ, port)

    def loop():
        while True:
            for key, _ in selector.select():
                sock, _ = key.fileobj.accept()
                threading.Thread(target=key.data.serve, args=(sock,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()
