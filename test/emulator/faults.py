"""Faults on demand: what a proxy, a network or a wrong server does to a request.

A fault matches requests by path prefix, method and mentioned table or function; it lets `skip` of them pass and then acts
on `count` (-1: for ever). `delay`, `mutate`, `edit`, `wrong_table`, `ignore_filter` and `drip` may act together
with others; of the rest the first that matches acts alone.
"""

import base64
import itertools
import json
import os
import re
import threading
import time
import zlib

from server import Closed, Response, reset, send_all, wait_data, wait_gone

COMBINING = ("delay", "mutate", "edit", "wrong_table", "ignore_filter", "drip")
ACTIONS = COMBINING + ("status", "body", "stall", "reset", "cut", "gzip_bomb", "brackets", "apply_then_cut",
                       "apply_then_status", "close_after", "function_error")


class Fault:
    def __init__(self, number, spec):
        action = spec.get("action")
        if isinstance(action, dict) and len(action) == 1:    # {"action": {"status": {"status": 500}}}, too
            (name, details), = action.items()
            spec = {**spec, **details, "action": name}
        if spec.get("action") not in ACTIONS:
            raise ValueError(f"unknown action {spec.get('action')!r}; known: {', '.join(ACTIONS)}")
        self.number = number
        self.spec = spec
        self.action = spec["action"]
        self.path = spec.get("path") or "/api"
        self.method = spec.get("method")
        self.where = spec.get("where") or {}
        self.skip = spec.get("skip", 0)
        self.left = spec.get("count", 1)
        self.released = threading.Event()

    def matches(self, request, mentioned):
        """`mentioned` gives the tables and the functions that the request names."""
        return (request.path.startswith(self.path)
                and (self.method is None or request.method == self.method)
                and all(self.where[kind] in mentioned()[kind] for kind in ("table", "function") if kind in self.where))

    def take(self):
        """True when it is this request's turn."""
        if self.left == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.left > 0:
            self.left -= 1
        return True

    def describe(self):
        return {**self.spec, "id": self.number, "skip": self.skip, "count": self.left}


class Faults:
    """The list of faults; whoever handles a request asks for its plan."""

    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.active = []

    def add(self, specs):
        made = [Fault(next(self.numbers), spec) for spec in specs]
        with self.lock:
            self.active = self.active + made
        return [fault.number for fault in made]

    def clear(self):
        with self.lock:
            old, self.active = self.active, []
        for fault in old:
            fault.released.set()

    def describe(self):
        return [fault.describe() for fault in self.active]

    def plan(self, request):
        """The faults that act on this request, in order; () for nearly all requests."""
        if not self.active:
            return ()
        cache = []

        def mentioned():
            if not cache:
                cache.append({"table": mentioned_tables(request), "function": mentioned_functions(request)})
            return cache[0]

        chosen, has_final = [], False
        with self.lock:
            for fault in self.active:
                is_final = fault.action not in COMBINING
                if fault.spec.get("at") == "accept" or (is_final and has_final):
                    continue
                if fault.left != 0 and fault.matches(request, mentioned) and fault.take():
                    chosen.append(fault)
                    has_final = has_final or is_final
        return chosen

    def on_accept(self, sock):
        """A stall at `accept` acts before TLS and before a byte is read."""
        for fault in self.active:
            if fault.spec.get("at") == "accept":
                with self.lock:
                    acts = fault.take()
                if acts:
                    wait_gone(sock, fault.spec.get("seconds"), fault.released)


def mentioned_tables(request):
    """Every table name that a request's arguments or body mention."""
    found = {value for name, value in request.args if name in ("tableName", "table_name")}
    body = request.json_or_none()
    rows = body if isinstance(body, list) else [body]
    for row in rows:
        if isinstance(row, dict):
            _collect_tables(row, found)
    return found


def mentioned_functions(request):
    """The paths of the functions that a request runs."""
    body = request.json_or_none()
    if not isinstance(body, dict):
        return set()
    calls = body["queries"] if isinstance(body.get("queries"), list) else [body]
    return {call["path"] for call in calls if isinstance(call, dict) and isinstance(call.get("path"), str)}


def _collect_tables(body, found):
    for name in ("tableName", "table_name", "table"):
        if isinstance(body.get(name), str):
            found.add(body[name])
    for name in ("tables", "tableNames", "indexes"):
        if isinstance(body.get(name), (dict, list)):
            found.update(item for item in body[name] if isinstance(item, str))
    for nested in ("tableDefinition", "import", "args", "queries", "ids"):
        below = body.get(nested)
        for part in below if isinstance(below, list) else [below]:
            if isinstance(part, dict):
                _collect_tables(part, found)
    selection = body.get("selection")
    if isinstance(selection, dict):
        for tables in selection.values():
            if isinstance(tables, dict):
                found.update(name for name, item in tables.items() if isinstance(item, dict))


def status_response(spec):
    """`status`: a Convex error body, or raw text."""
    status = spec.get("status", 500)
    headers = list((spec.get("headers") or {}).items())
    if "body" in spec:
        text = spec["body"].encode()
        return Response(status, [text] if text else [], headers, spec.get("content_type", "text/plain"))
    if "code" not in spec and "message" not in spec and status == 408:
        return Response(status, [], headers)

    text = json.dumps({"code": spec.get("code", "InternalServerError"),
                       "message": spec.get("message", "Injected by the emulator.")}, separators=(",", ":"))
    return Response(status, [text.encode()], headers, spec.get("content_type", "application/json"))


def body_response(spec):
    if "body_base64" in spec:
        data = base64.b64decode(spec["body_base64"])
    else:
        data = spec.get("body", "").encode()
    headers = list((spec.get("headers") or {}).items())
    return Response(spec.get("status", 200), [data], headers, spec.get("content_type", "application/json"))


def function_error_response(spec):
    """As a function fails: `message` with whatever it begins with, `data` in any encoding."""
    answer = {"status": "error",
              "errorMessage": f"[Request ID: {os.urandom(8).hex()}] Server Error\n{spec.get('message', 'Injected.')}"}
    if "data" in spec:
        answer["errorData"] = spec["data"]
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
    return Response(spec.get("status", 200), [text.encode()])


def gzip_bomb_response(spec):
    """Blanks that inflate to so many MB behind the beginning of an answer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b'{"values":[')]
    blank = b" " * (1 << 20)
    for _ in range(spec.get("megabytes", 200)):
        parts.append(packer.compress(blank))
    parts.append(packer.flush())
    return Response(200, [b"".join(parts)], [("content-encoding", "gzip")])


def brackets_response(spec):
    return Response(200, [b"[" * spec.get("n", 1_000_000)])


def edit_body(spec, response):
    """`edit`: plain text replacement; `wrong_table`: another `_table` in every row."""
    body = b"".join(response.parts)
    if spec["action"] == "edit":
        body = body.replace(spec["find"].encode(), spec["replace"].encode())
    else:
        name = spec.get("table", "somebody_elses_table").encode()
        body = re.sub(rb'"_table":"[^"]*"', lambda match: b'"_table":"' + name + b'"', body)
    response.parts = [body]


def sender(fault):
    """How the bytes of an answer leave under a fault: function(sock, head, parts)."""
    return _SENDERS[fault.action](fault)


def _stall(fault):
    spec = fault.spec

    def send(sock, head, parts):
        body = b"".join(parts)
        sent = head + body[:spec.get("after_bytes", 0)] if spec.get("at", "headers") == "body" else b""
        if sent:
            sock.sendall(sent)
        wait_gone(sock, spec.get("seconds"), fault.released)
        sock.sendall((head + body)[len(sent):])
    return send


def _reset(fault):
    after = fault.spec.get("after_bytes", 0)

    def send(sock, head, parts):
        if after > 0:
            sock.sendall(head + b"".join(parts)[:after])
        reset(sock)
    return send


def _cut(fault):
    def send(sock, head, parts):
        sock.sendall(head + b"".join(parts)[:fault.spec.get("after_bytes", 0)])
        raise Closed
    return send


def _apply_then_cut(fault):
    def send(sock, head, parts):
        raise Closed
    return send


def _close_after(fault):
    """The answer is whole and promises to keep the connection."""
    def send(sock, head, parts):
        send_all(sock, [head, *parts])
        if fault.spec.get("at", "answer") == "next":
            wait_data(sock)
        raise Closed
    return send


def _drip(fault):
    size, pause = fault.spec.get("bytes", 1), fault.spec.get("interval_ms", 10) / 1000

    def send(sock, head, parts):
        body = b"".join(parts)
        sock.sendall(head)
        for start in range(0, len(body), size):
            sock.sendall(body[start:start + size])
            if start + size < len(body):
                wait_gone(sock, pause, fault.released)
    return send


_SENDERS = {
    "stall": _stall,
    "reset": _reset,
    "cut": _cut,
    "apply_then_cut": _apply_then_cut,
    "close_after": _close_after,
    "drip": _drip,
}


def run(plan, request, handle, mutate):
    """The answer to a request under its faults; `handle` and `mutate` are the emulator's."""
    answer, final = None, None
    for fault in plan:
        spec = fault.spec
        if fault.action == "delay":
            time.sleep(spec.get("ms", 0) / 1000)
        elif fault.action == "mutate":
            mutate(spec["ops"])
        elif fault.action == "ignore_filter":
            request.ignore_filter = True
        elif fault.action not in COMBINING:
            final = fault
    if final is not None and final.action in _INSTEAD:
        answer = _INSTEAD[final.action](final.spec)
    elif final is not None and final.action == "reset" and not final.spec.get("after_bytes"):
        answer = Response(None)    # nothing is done and nothing is sent
    else:
        answer = handle(request)
    for fault in plan:
        if fault.action in ("edit", "wrong_table"):
            edit_body(fault.spec, answer)
        elif fault.action in _SENDERS:
            answer.send = sender(fault)
        elif fault.action == "apply_then_status":
            answer = status_response(fault.spec)
    return answer


_INSTEAD = {
    "status": status_response,
    "body": body_response,
    "function_error": function_error_response,
    "gzip_bomb": gzip_bomb_response,
    "brackets": brackets_response,
}
