"""The WebSocket on which a client follows queries, here the state of imports: what `npx convex import` waits with.

A connection has a set of queries and an identity, each with a version that the client counts; whenever one of them or
the database changes, a `Transition` brings the results that are new.

Convex: crates/sync, crates/convex/sync_types, npm-packages/convex/src/browser/sync/protocol.ts; the frames: RFC 6455.
"""

import base64
import hashlib
import json
import re
import struct

from auth import NOBODY
from errors import ApiError
from server import Closed, Response

PATH = re.compile(r"/api/(?:[^/]+/)?sync\Z")

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUED, _TEXT, _CLOSE, _PING, _PONG = 0, 1, 8, 9, 10
TICK_S = 0.05
MAX_FRAME = 1 << 20


class Frames:
    """Messages over a socket; small ones, which is all that clients send here."""

    def __init__(self, sock):
        self.sock = sock
        self.data = b""
        self.message = b""
        sock.settimeout(TICK_S)

    def send(self, text, opcode=_TEXT):
        data = text.encode() if isinstance(text, str) else text
        size = len(data)
        if size < 126:
            head = bytes([0x80 | opcode, size])
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
        self.sock.sendall(head + data)

    def receive(self):
        """The next message, or None when there is none for the moment."""
        while True:
            frame = self._frame()
            if frame is None:
                return None
            is_last, opcode, data = frame
            if opcode == _CLOSE:
                self.send(data, _CLOSE)
                raise Closed
            if opcode == _PING:
                self.send(data, _PONG)
            elif opcode in (_CONTINUED, _TEXT):
                self.message += data
                if is_last:
                    message, self.message = self.message, b""
                    try:
                        return json.loads(message)
                    except ValueError:
                        raise Closed from None

    def _frame(self):
        """A whole frame out of what has come; clients mask theirs."""
        while True:
            frame = self._parse()
            if frame is not None:
                return frame
            try:
                more = self.sock.recv(65536)
            except TimeoutError:
                return None
            if not more:
                raise Closed
            self.data += more

    def _parse(self):
        data = self.data
        if len(data) < 2:
            return None
        size, at = data[1] & 0x7f, 2
        if size >= 126:
            kind, width = (">H", 2) if size == 126 else (">Q", 8)
            if len(data) < at + width:
                return None
            size, at = struct.unpack_from(kind, data, at)[0], at + width
        if size > MAX_FRAME or not data[1] & 0x80:
            raise Closed
        if len(data) < at + 4 + size:
            return None
        mask, payload = data[at:at + 4], data[at + 4:at + 4 + size]
        self.data = data[at + 4 + size:]
        return data[0] & 0x80, data[0] & 0x0f, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Session:
    """One client: what it follows, what it was told, and what the next transition starts from."""

    def __init__(self, routes, sock):
        self.routes = routes
        self.emulator = routes.emulator
        self.frames = Frames(sock)
        self.identity = NOBODY
        self.queries = {}    # id -> (path, args)
        self.told = {}       # id -> the result as text
        self.version = {"querySet": 0, "identity": 0, "ts": _ts(0)}
        self.seen_ts = 0

    def run(self):
        while True:
            message = self.frames.receive()
            if message is not None:
                try:
                    self._take(message)
                except (KeyError, TypeError, AttributeError):    # not of this protocol
                    raise Closed from None
            elif self.seen_ts != self.emulator.store.last_ts:
                self._transition({})

    def _take(self, message):
        kind = message.get("type")
        if kind == "Authenticate":
            self._authenticate(message)
        elif kind == "ModifyQuerySet":
            for change in message["modifications"]:
                self.told.pop(change["queryId"], None)
                self.queries.pop(change["queryId"], None)
                if change["type"] == "Add":
                    self.queries[change["queryId"]] = change["udfPath"], change["args"]
            self._transition({"querySet": message["newVersion"]})
        elif kind in ("Mutation", "Action"):
            self.frames.send(json.dumps({"type": kind + "Response", "requestId": message["requestId"], "success": False,
                                         "result": f"Could not find public function for '{message['udfPath']}'.",
                                         "logLines": []}))

    def _authenticate(self, message):
        try:
            is_admin = message.get("tokenType") == "Admin"
            self.identity = self.emulator.keys.from_key(message["value"]) if is_admin else NOBODY
        except ApiError as error:
            self.frames.send(json.dumps({"type": "AuthError", "error": error.message, "authUpdateAttempted": True,
                                         "baseVersion": message["baseVersion"]}))
            return
        self._transition({"identity": message["baseVersion"] + 1})

    def _transition(self, versions):
        """Nothing is sent when nothing is new."""
        self.seen_ts = self.emulator.store.last_ts
        changes = [change for number in self.queries for change in self._change(number)]
        if not (changes or versions):
            return
        end = {**self.version, **versions, "ts": _ts(self.seen_ts)}
        self.frames.send(json.dumps({"type": "Transition", "startVersion": self.version, "endVersion": end,
                                     "modifications": changes}))
        self.version = end

    def _change(self, number):
        path, args = self.queries[number]
        answer = json.loads(b"".join(self.routes.run_query(self.identity, path, args, "convex_encoded_json").parts))
        known = json.dumps(answer.get("value")) + answer.get("errorMessage", "").partition("\n")[2]
        if self.told.get(number) == known:
            return
        self.told[number] = known
        if answer["status"] == "success":
            yield {"type": "QueryUpdated", "queryId": number, "value": answer["value"], "logLines": [], "journal": None}
        else:
            yield {"type": "QueryFailed", "queryId": number, "errorMessage": answer["errorMessage"], "logLines": [],
                   "errorData": None, "journal": None}


def _ts(ts):
    return base64.b64encode(struct.pack("<Q", ts)).decode()


def upgrade(routes, request):
    """The answer that turns a request's connection into a WebSocket."""
    key = request.headers.get("sec-websocket-key")
    if key is None or request.headers.get("upgrade", "").lower() != "websocket":
        return Response(400, [b"`Upgrade` header did not include 'websocket'"], content_type="text/plain")
    accept = base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()
    response = Response(101)

    def send(sock, head, parts):
        sock.sendall(("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                      f"sec-websocket-accept: {accept}\r\n\r\n").encode())
        Session(routes, sock).run()
    response.send = send
    return response
