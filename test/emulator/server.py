"""A threaded HTTP/1.1 server on plain sockets, small enough to answer cached bytes at memory speed.

One thread a connection, keep-alive, Content-Length and chunked request bodies, `Expect: 100-continue`, TLS.
It knows nothing about Convex: `handler(request)` gives a `Response`, and `response.send`, when set, decides
how the bytes leave (faults use it).
"""

import email.utils
import json
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse

MAX_HEAD = 64 * 1024
SEND_BUFFER = 4 << 20

REASONS = {
    101: "Switching Protocols", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 413: "Payload Too Large",
    421: "Misdirected Request", 425: "Too Early", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}


class Head:
    """The parsed request line and headers; shared by requests whose heads are the same bytes."""

    __slots__ = ("method", "path", "query", "headers", "length", "is_chunked", "expects_continue",
                 "keep_alive", "args")

    def __init__(self, data):
        lines = data.decode("latin-1").split("\r\n")
        self.method, target, version = lines[0].split(" ")
        self.path, _, self.query = target.partition("?")
        self.headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header line without a colon")
            self.headers[name.strip().lower()] = value.strip()
        self.length = int(self.headers.get("content-length", 0))
        if self.length < 0:
            raise ValueError("a negative length")
        self.is_chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        self.expects_continue = self.headers.get("expect", "").lower() == "100-continue"
        wish = self.headers.get("connection", "").lower()
        self.keep_alive = wish != "close" and (version == "HTTP/1.1" or wish == "keep-alive")
        self.args = urllib.parse.parse_qsl(self.query, keep_blank_values=True) if self.query else []


class Request:
    __slots__ = ("method", "path", "query", "args", "headers", "body", "connection", "sock", "_json",
                 "entry", "ignore_filter")

    def __init__(self, head, body, connection, sock):
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.args = head.args
        self.headers = head.headers
        self.body = body
        self.connection = connection
        self.sock = sock
        self.entry = None
        self.ignore_filter = False

    def json_or_none(self):
        """The body for whoever only looks (faults, journal)."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Response:
    __slots__ = ("status", "headers", "parts", "send", "close")

    def __init__(self, status=200, parts=(), headers=(), content_type="application/json"):
        self.status = status
        self.parts = list(parts)
        self.headers = list(headers)
        if self.parts and content_type:
            self.headers.insert(0, ("content-type", content_type))
        self.send = None
        self.close = False

    def length(self):
        return sum(map(len, self.parts))

    def head(self, date, length=None):
        lines = [f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(f"content-length: {self.length() if length is None else length}")
        if not any(name.lower() == "date" for name, _ in self.headers):
            lines.append(f"date: {date}")
        if self.close:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Closed(Exception):
    """The client is gone, or the connection is to be closed without more ado."""


class Server:
    def __init__(self, handler, on_accept=None, now_ns=time.time_ns, tls=None):
        self.handler = handler
        self.on_accept = on_accept
        self.now_ns = now_ns
        self.tls = tls
        self.listener = None
        self.heads = {}
        self.dates = (0, "")
        self.connections = 0
        self.stopping = threading.Event()

    def listen(self, host, port):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.listener.bind((host, port))
        self.listener.listen(512)
        return self.listener.getsockname()[1]

    def start(self):
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self.stopping.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def date(self):
        second = self.now_ns() // 10**9
        if self.dates[0] != second:
            self.dates = second, email.utils.formatdate(second, usegmt=True)
        return self.dates[1]

    def _accept(self):
        while not self.stopping.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock, number):
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.on_accept is not None:
                self.on_accept(sock)
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
            self._requests(sock, number)
        except (OSError, Closed, ssl.SSLError):
            pass
        finally:
            sock.close()

    def _requests(self, sock, number):
        data = b""
        while True:
            end = data.find(b"\r\n\r\n")
            while end < 0:
                chunk = sock.recv(65536)
                if not chunk:
                    return
                data += chunk
                end = data.find(b"\r\n\r\n")
                if end < 0 and len(data) > MAX_HEAD:
                    send_all(sock, [self._refusal(431)])
                    return
            text = data[:end]
            head = self.heads.get(text)
            if head is None:
                try:
                    head = Head(text)
                except ValueError:
                    send_all(sock, [self._refusal(400)])
                    return
                if len(self.heads) > 2000:
                    self.heads.clear()
                self.heads[text] = head
            data = data[end + 4:]
            if head.expects_continue and len(data) < max(head.length, 1):
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if head.is_chunked:
                body, data = _read_chunked(sock, data)
            elif head.length:
                body, data = _read_body(sock, data, head.length)
            else:
                body = b""
            request = Request(head, body, number, sock)
            response = self.handler(request)
            if not head.keep_alive:
                response.close = True
            self._answer(request, response)
            if response.close:
                return

    def _refusal(self, status):
        response = Response(status)
        response.close = True
        return response.head(self.date())

    def _answer(self, request, response):
        head = response.head(self.date())
        if request.method == "HEAD":
            send_all(request.sock, [head])
        elif response.send is not None:
            response.send(request.sock, head, response.parts)
        else:
            send_all(request.sock, [head, *response.parts])


def send_all(sock, parts):
    if isinstance(sock, ssl.SSLSocket):
        for part in parts:
            sock.sendall(part)
        return
    total = sum(map(len, parts))
    sent = sock.sendmsg(parts)
    if sent < total:
        sock.sendall(b"".join(parts)[sent:])


def reset(sock):
    """Closes with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(sock, ssl.SSLSocket):
        socket.socket(fileno=sock.detach()).close()
    else:
        sock.close()
    raise Closed


def wait_gone(sock, seconds, released):
    """Sits still until time is up or `released` is set; Closed when the client has left."""
    deadline = None if seconds is None else time.monotonic() + seconds
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    while not released.is_set():
        left = 0.02 if deadline is None else min(0.02, deadline - time.monotonic())
        if left <= 0:
            return
        if poller.poll(left * 1000):
            raise Closed


def wait_data(sock):
    """Until something that nobody has read yet is there, or the client has left."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.poll()


def _read_body(sock, data, length):
    if len(data) >= length:
        return data[:length], data[length:]
    body = bytearray(length)
    body[:len(data)] = data
    view = memoryview(body)[len(data):]
    while view:
        size = sock.recv_into(view)
        if size == 0:
            raise Closed
        view = view[size:]
    return bytes(body), b""


def _read_chunked(sock, data):
    body = []

    def more():
        chunk = sock.recv(65536)
        if not chunk:
            raise Closed
        return chunk

    while True:
        while b"\r\n" not in data:
            data += more()
        line, data = data.split(b"\r\n", 1)
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise Closed from None
        if size == 0:
            while not data.startswith(b"\r\n") and b"\r\n\r\n" not in data:
                data += more()
            rest = data[2:] if data.startswith(b"\r\n") else data.split(b"\r\n\r\n", 1)[1]
            return b"".join(body), rest
        while len(data) < size + 2:
            data += more()
        body.append(data[:size])
        data = data[size + 2:]
