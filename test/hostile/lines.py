#!/usr/bin/env python3
"""The table of misbehaviours: what a peer does, and what each use of it must come to.

    entry(name, rules, scan=.., imports=.., write=.., requests=.., variants=.., limits=.., memory_mb=..)

`rules`   route -> what it answers: JSON, bytes, or a function (line, request, nth) that answers or misbehaves.
          TARGET is the route that a use cannot do without: the page of a scan, the list of tables of
          IMPORT FOREIGN SCHEMA, the write of an UPDATE by key. Everything else is answered well.
`scan`, `imports`, `write`, `follow`, `changes`, `keys`   what a use must come to: SQLSTATEs separated by "|",
          or "right", the result of a good deployment. Without it the line says nothing to this use.
`requests`   how many requests a use may send to the routes with rules, for each variant; a load of a
          subscription may send three times as many.
`variants`   how often the use is tried; the peer counts, and answers each time another way.
`limits`  options of the server. Those of FAST never end a line that is answered at once.
`memory_mb`  by how much the backend may grow beyond what it had.

A subscription that is followed meets each line of a read as well: "worker" in its change log and head, "check" in its
first load and in the check that is asked for later. What these must come to is what the line says of a load, of the
change log or of a scan, or HV00M, since an answer may also be one to another request; the most requests are the test's.

Run alone this serves the table and prints it as JSON, one line, with the ports; it ends with standard input.
On standard input "counts" asks for the requests that each port has seen; "hostile" and "sane", each with uses, say how
these behave from now on (all but "worker" and "check" begin hostile) and give all requests of each port since it was last
told so, and "news" gives every good answer one more document.
"""

import json
import re
import sys
import zlib

from peer import (
    COLUMNS, DECLARED, DELTAS, HEAD, QUERY_TS, QUESTION, SCHEMAS, SNAPSHOT, WRITE,
    Port, change, columns, deltas, document, page, row_id, schema, serve, text,
)

TARGET = "target"
FOLLOWED = {"worker": (DELTAS, QUERY_TS), "check": (SNAPSHOT,)}
TARGETS = {"worker": DELTAS, "check": SNAPSHOT, "scan": SNAPSHOT, "imports": COLUMNS, "write": WRITE, "follow": DELTAS, "changes": DELTAS, "keys": SNAPSHOT,
           "ask": QUESTION}

# The limits of a line that is answered at once, and of one that has to be ended. Before a write comes to that it asks
# for other things, which a loaded machine is to answer in time.
FAST = {"max_response_size": "1MB", "max_retries": "0", "max_retry_wait": "1ms"}
SHORT = {**FAST, "connect_timeout": "1s", "request_timeout": "1s", "idle_timeout": "500ms"}
SHORT_WRITE = {**FAST, "connect_timeout": "4s", "request_timeout": "4s", "idle_timeout": "3s"}
RETRYING = {**FAST, "max_retries": "2"}

KEY = "prod:happy-otter-123|Zm9vYmFyc2VjcmV0cXV4"

ENTRIES = []


class Entry:
    def __init__(self, name, rules, *, scan=None, imports=None, write=None, follow=None, changes=None, keys=None, ask="right",
                 requests=1, variants=1, limits=FAST,
                 memory_mb=24, greet=None, scheme="http", columns=""):
        self.name = name
        self.rules = rules
        self.outcomes = {use: outcome for use, outcome in
                         (("scan", scan), ("imports", imports), ("write", write), ("follow", follow), ("changes", changes),
                          ("keys", keys)) if outcome}
        read = "|".join(filter(None, (follow, changes))) or scan
        for use, routes in FOLLOWED.items():
            is_met = TARGET in rules or any(route in rules for route in routes) or (greet and scheme == "http" and use == "worker")
            if is_met and read and not re.search("right [0-9]|HV004", read) and not {WRITE, COLUMNS} & rules.keys():
                self.outcomes[use] = read + "|HV00M"
        if TARGET in rules or QUESTION in rules:
            self.outcomes["ask"] = ask      # whatever is wrong with an answer, there is the walk
        self.requests = requests
        self.variants = variants
        self.limits = limits
        self.memory_mb = memory_mb
        self.greet = greet
        self.scheme = scheme
        self.columns = columns

    def rules_of(self, use):
        return {TARGETS[use] if route == TARGET else route: rule for route, rule in self.rules.items()}


def entry(name, rules, **details):
    ENTRIES.append(Entry(name, rules, **details))


def each(variants):
    """One of these for each try; bytes, JSON, or a function of the line."""
    def rule(line, request, nth):
        variant = variants[min(nth, len(variants) - 1)]
        return variant(line) if callable(variant) else variant
    return rule


def entries(name, route, variants, **details):
    entry(name, {route: each(variants)}, variants=len(variants), **details)


def does(action):
    """A rule that misbehaves and answers nothing more."""
    def rule(line, request, nth):
        action(line)
        return ...
    return rule


def status(code, body=b"", headers=""):
    return does(lambda line: line.answer(code, body, headers))


def without(answer, member):
    return {name: value for name, value in answer.items() if name != member}


def raw_with(answer, member, value):
    """The text of an answer with another value, as text, for one member."""
    mark = json.dumps("\x01" + member)
    return text({**answer, member: "\x01" + member}).replace(mark.encode(), value.encode())


WRONG = ['"17"', "1.7e18", "1787000001000000000.5", "-1787000001000000000", "123456789012345678901234567890", "true",
         "null", "{}", "[]", "[1787000001000000000]", "-0", "01"]
NO_BOOLS = ['"true"', "1", "0", "null", "{}", "[]", '""']
NO_ARRAYS = ["{}", "null", '"[]"', "0", "true", '{"0":{}}']
NO_TEXTS = ["5", "{}", "[]", "true", "1.5", '""', '"\\u0000"', '"\\ud800"']

# ---------------------------------------------------------------- bytes

PAGE = page(document())
GZIP = "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def gzip_bomb(line):
    """Zeros for ever, a thousand times smaller on the line."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    line.begin(GZIP)
    while True:
        line.send(chunk(packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)))


def endless_headers(line):
    line.send(b"HTTP/1.1 200 OK\r\n")
    line.forever(b"X-Endless: " + b"x" * 1000 + b"\r\n")


def endless_trailers(line):
    line.begin(CHUNKED)
    line.send(chunk(text(PAGE)) + b"0\r\n")
    line.forever((b"X-Trailer: " + b"x" * 1000 + b"\r\n") * 16)


def endless_body(line):
    line.begin()
    line.forever(b" " * 65536)


def dripping(line):
    line.begin()
    line.send(text(page())[:-1])
    line.forever(b" ", every=0.2)


def hints(line):
    line.forever(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", every=0.2)


def cuts(answer):
    """The text cut before and after everything that gives it its structure."""
    body = text(answer)
    places = sorted({at + more for at, c in enumerate(body) for more in (0, 1) if chr(c) in '{}[]:,"'})
    return [body[:at] for at in places if at < len(body)]


BROKEN_WALK = dict(scan="HV00M", write="HV00M", follow="HV00M", keys="HV00M")
BROKEN_LOG = dict(write="HV00M", follow="HV00M", changes="HV00M")
LOST = dict(scan="08006", imports="08006", write="08007")
UNREADABLE = dict(scan="HV00M", imports="HV00M", write="08007")

entry("endless headers", {TARGET: does(endless_headers)}, scan="HV00M|08006|54000", imports="HV00M|08006|54000",
      write="08007")
entry("a header of one line without end", {TARGET: does(lambda line: line.forever(b"x" * 65536))},
      scan="HV00M|08006|54000", imports="HV00M|08006|54000", write="08007")
entry("an endless body without a length", {TARGET: does(endless_body)}, scan="54000", imports="54000", write="08007")
entry("a body of gzip that swells a thousandfold", {TARGET: does(gzip_bomb)}, scan="54000", imports="54000",
      write="08007")
entry("a length of 100 GB and a body to match",
      {TARGET: does(lambda line: (line.begin("Content-Length: 107374182400\r\n"), line.forever(b" " * 65536)))},
      scan="54000", imports="54000", write="08007")
entry("an error body of 100 MB",
      {TARGET: does(lambda line: (line.send(b"HTTP/1.1 500 X\r\nContent-Length: 104857600\r\n\r\n"),
                                  line.forever(b"x" * 65536)))},
      scan="54000", imports="54000", write="08007")
entry("a refusal with a body of 900 kB",
      {TARGET: status(400, b'{"code":"BadJsonBody","message":"' + b"x" * 900_000 + b'"}')},
      scan="HV00L", imports="HV00L", write="HV00L")
entry("a length that the body does not reach",
      {TARGET: does(lambda line: (line.begin("Content-Length: 5000\r\n"), line.send(text(PAGE)), line.close()))}, **LOST)
entry("a length that the body passes",
      {TARGET: does(lambda line: (line.begin("Content-Length: 100\r\n"), line.send(text(PAGE)), line.close()))},
      ask="right|HV00M", **UNREADABLE)       # what is left of the body comes before the next answer
entry("two lengths",
      {TARGET: does(lambda line: (line.begin("Content-Length: 100\r\nContent-Length: 5000\r\n"), line.send(text(PAGE)),
                                  line.close()))}, scan="HV00M|08006", imports="HV00M|08006", write="08007")
entry("noise instead of HTTP", {TARGET: does(lambda line: (line.send(bytes(range(128, 256)) * 20), line.close()))},
      scan="HV00M|08006", imports="HV00M|08006", write="08007")
entry("a greeting of SMTP", {TARGET: does(lambda line: (line.send(b"220 mail.example.com ESMTP\r\n"), line.close()))},
      **UNREADABLE)
entry("HTTP/2 that nobody spoke of",
      {TARGET: does(lambda line: (line.send(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\0\x04\0\xa0\0\0"), line.close()))},
      scan="HV00M|08006", imports="HV00M|08006", write="08007")
entry("a reset instead of an answer", {TARGET: does(lambda line: line.reset())}, **LOST)
entry("a reset in the middle of the body",
      {TARGET: does(lambda line: (line.begin("Content-Length: 5000\r\n"), line.send(text(PAGE)), line.reset()))}, **LOST)
entry("a close instead of an answer", {TARGET: does(lambda line: line.close())}, **LOST)
entry("silence after the request", {TARGET: does(lambda line: line.silence())}, limits=SHORT, **LOST)
entry("silence in the headers", {TARGET: does(lambda line: (line.send(b"HTTP/1.1 200 OK\r\nX-"), line.silence()))},
      limits=SHORT, **LOST)
entry("silence in the body",
      {TARGET: does(lambda line: (line.begin("Content-Length: 500\r\n"), line.send(b'{"val'), line.silence()))},
      limits=SHORT, **LOST)
entry("endless trailers", {TARGET: does(endless_trailers)}, **UNREADABLE)
entry("interim answers without end", {TARGET: does(lambda line: line.forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 100))},
      **UNREADABLE)
entry("an interim answer now and then", {TARGET: does(hints)}, limits=SHORT, **LOST)
entry("a byte now and then", {TARGET: does(dripping)}, limits=SHORT, **LOST)
entry("a header now and then",
      {TARGET: does(lambda line: (line.send(b"HTTP/1.1 200 OK\r\n"), line.forever(b"X-A: b\r\n", every=0.2)))}, limits=SHORT, **LOST)
entry("a chunk of a byte now and then",
      {TARGET: does(lambda line: (line.begin(CHUNKED), line.forever(chunk(b" "), every=0.2)))}, limits=SHORT, **LOST)
entry("a trailer now and then",
      {TARGET: does(lambda line: (line.begin(CHUNKED), line.send(chunk(text(PAGE)) + b"0\r\n"),
                                  line.forever(b"X-A: b\r\n", every=0.2)))}, limits=SHORT, **LOST)
entry("a byte of gzip now and then",
      {TARGET: does(lambda line: (line.begin("Content-Encoding: gzip\r\n"), line.send(zlib.compress(b"", 9, 31)[:10]),
                                  line.forever(b"\0", every=0.2)))}, limits=SHORT, scan="08006|HV00M", imports="08006|HV00M",
      write="08007")
entry("silence after connecting", {}, greet=lambda line: line.silence(), limits=SHORT, scan="08006", imports="08006",
      write="08006")
entry("a reset after connecting", {}, greet=lambda line: line.reset(), scan="08006|HV00N", imports="08006|HV00N",
      write="08006|HV00N", requests=9)
entry("noise instead of TLS", {}, scheme="https", requests=9,
      greet=lambda line: (line.sock.recv(4096), line.send(b"SSH-2.0-OpenSSH_9.2\r\n" * 50), line.close()),
      scan="HV00N|08006", imports="HV00N|08006", write="HV00N|08006")
entry("silence instead of TLS", {}, scheme="https", greet=lambda line: line.silence(), limits=SHORT, scan="HV00N",
      imports="HV00N", write="HV00N", requests=9)

# ---------------------------------------------------------------- statuses

entry("HTML with status 200", {TARGET: status(200, b"<!DOCTYPE html><html><body>Sign in</body></html>")}, **UNREADABLE)
entry("nothing with status 200", {TARGET: status(200)}, scan="HV00M", imports="HV00M", write="right")
entry("status 204", {TARGET: does(lambda line: line.send(b"HTTP/1.1 204 X\r\n\r\n"))}, **UNREADABLE)
entry("status 206", {TARGET: status(206, PAGE)}, **UNREADABLE)
entries("redirects", TARGET, [lambda line, code=code: (line.answer(code, b"", "Location: http://127.0.0.1:1/\r\n"), ...)[1]
                              for code in (301, 302, 303, 307, 308)],
        scan="HV00M", imports="HV00M", write="HV00M")
entry("status 401", {TARGET: status(401, {"code": "BadAdminKey", "message": "no"})}, scan="28000", imports="28000",
      write="28000")
entry("status 403", {TARGET: status(403, {"code": "OperationNotPermitted", "message": "no"})}, scan="42501",
      imports="42501", write="42501")
entry("status 404", {TARGET: status(404)}, scan="0A000", write="0A000")
for number, sqlstate, write in ((408, "08006", "08007"), (425, "53000", "08007"), (429, "53000", "53000"),
                                (500, "HV000", "08007"), (502, "HV000", "08007"), (503, "53000", "08007"),
                                (504, "HV000", "08007"), (599, "HV000", "08007")):
    entry(f"status {number} for ever", {TARGET: status(number)}, scan=sqlstate, imports=sqlstate, write=write,
          limits=RETRYING, requests=21 if number == 408 else 3)
entry("a failure that lasts", {SNAPSHOT: status(503, {"code": "InternalServerError", "message": "x"})}, scan="53000",
      write="53000", limits={**FAST, "max_retries": "9"}, requests=3)
for wish in ("99999999999999999999", "86400", "Fri, 31 Dec 9999 23:59:59 GMT"):
    entry(f"status 429 and Retry-After: {wish}", {TARGET: status(429, b"", f"Retry-After: {wish}\r\n")}, scan="53000",
          imports="53000", write="53000", limits=RETRYING)
for wish in ("-5", "0", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", ""):
    entry(f"status 429 and Retry-After: {wish!r}", {TARGET: status(429, b"", f"Retry-After: {wish}\r\n")}, scan="53000",
          imports="53000", write="53000", limits=RETRYING, requests=3)
entries("the key in what is said", TARGET,
        [lambda line, code=code, shape=shape: (line.answer(code, shape % KEY.encode()), ...)[1]
         for code in (200, 302, 400, 401, 500)
         for shape in (b"%s", b'{"code":"%s","message":"x"}', b'{"code":"x","message":"%s"}')],
        scan="HV00M|HV00L|28000|HV000", imports="HV00M|HV00L|28000|HV000", write="HV00M|HV00L|28000|HV000|08007")
entries("the key as a name", SNAPSHOT,
        [page(document(_id=KEY), document(_id=KEY)), page(document(_table=KEY)), page(document(_component=KEY)),
         page(document(name={"$integer": KEY})), page(document(id=KEY)), page(document(_id=KEY, id=True)), {KEY: PAGE}],
        scan="HV00M|HV004")
entries("the key as a name in a list", COLUMNS,
        [{"byComponent": {"": [{"name": name, "columns": ["_id", column]}]}}
         for name, column in ((KEY, "a"), ("users", KEY), ("Zm9vYmFyc2VjcmV0cXV4", "a"))], imports="HV00M")

# ---------------------------------------------------------------- JSON

entries("a page cut at every place of its structure", SNAPSHOT, cuts(PAGE), scan="HV00M")
entries("a list of tables cut at every place", COLUMNS, cuts(columns(("users", ("_id", "_creationTime")))), imports="HV00M")
entries("a page of changes cut at every place", DELTAS, cuts(deltas(change())), write="HV00M", changes="HV00M")
entries("deep nesting", SNAPSHOT,
        [page(document(name=0)) and text(page(document(name=0))).replace(b'"name":0', b'"name":' + bracket)
         for bracket in (b"[" * 400_000, b'{"a":' * 180_000, b"[" * 200 + b"]" * 200, b'[{"":' * 80 + b"1" + b"}]" * 80)],
        scan="HV00M", write="HV00M")
entries("deep nesting in a list of tables", COLUMNS, [b"[" * 900_000, b'{"byComponent":' * 60_000], imports="HV00M")
entries("deep nesting in schemas", SCHEMAS, [b"[" * 900_000, b'{"":' * 200_000], imports="HV00M")
entries("text that is not Unicode", SNAPSHOT,
        [text(PAGE).replace(b"Eve", bad) for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82",
                                                    b"\\ud800", b"\\udc00", b"\\ud800x", b"\x00", b"\x01", b"\\u00", b"\\x41")],
        scan="HV00M", write="HV00M")
entries("U+0000 in a value", SNAPSHOT, [text(PAGE).replace(b"Eve", b"a\\u0000b")], scan="HV004", write="HV00M|HV004")
entries("odd ids", SNAPSHOT,
        [text(PAGE).replace(row_id(1).encode(), bad) for bad in (b"a\\u0000b", b"\\ud800", b"\xff", b"", b"\\u006a")] +
        [raw_with(PAGE, "values", '[{"_component":"","_table":"users","_ts":1,"_id":%s}]' % bad)
         for bad in ("null", "5", "{}", "[]", "true")],
        scan="HV00M", write="HV00M")

# ---------------------------------------------------------------- members

entries("a snapshot of another type", SNAPSHOT, [raw_with(PAGE, "snapshot", value) for value in WRONG + ["0"]],
        scan="HV00M", write="HV00M")
entries("a delta cursor of another type", DELTAS, [raw_with(deltas(), "cursor", value) for value in WRONG], write="HV00M",
        changes="HV00M|22023")
entries("hasMore of another type", SNAPSHOT, [raw_with(PAGE, "hasMore", value) for value in NO_BOOLS], scan="HV00M")
entries("values of another type", SNAPSHOT, [raw_with(PAGE, "values", value) for value in NO_ARRAYS + ["[[]]", "[5]", "[null]"]],
        scan="HV00M")
entries("a page cursor of another type", SNAPSHOT, [raw_with(PAGE, "cursor", value) for value in NO_TEXTS], scan="HV00M")
entries("a page cursor of another type, and more", SNAPSHOT,
        [raw_with({**PAGE, "hasMore": True}, "cursor", value) for value in NO_TEXTS + ["null"]], scan="HV00M")
entries("a missing member", SNAPSHOT, [without(PAGE, member) for member in ("values", "snapshot", "hasMore")] +
        [without({**PAGE, "hasMore": True}, "cursor"), {}, []], scan="HV00M")
entries("a missing member of changes", DELTAS, [without(deltas(), member) for member in ("values", "cursor", "hasMore")] +
        [{}, []], write="HV00M")
entries("a member twice", SNAPSHOT,
        [text(PAGE)[:-1] + b",%s}" % again for again in
         (b'"values":[]', b'"snapshot":%d' % HEAD, b'"hasMore":false', b'"cursor":null', b'"cursor":"x"')], scan="HV00M")
entries("a document's member twice", SNAPSHOT,
        [text(PAGE).replace(b'"name":"Eve"', b'"name":"Eve",%s' % again) for again in
         (b'"_id":"j1"', b'"_ts":5', b'"_table":"users"', b'"_component":""', b'"_table":"secrets"')], scan="HV00M")
entries("a document without one of its members", SNAPSHOT,
        [page(document(**{member: ...})) for member in ("_id", "_ts", "_table", "_component")] +
        [page(document(), document(2, **{member: ...})) for member in ("_id", "_ts", "_table", "_component")],
        scan="HV00M", write="HV00M")
entries("a change without one of its members", DELTAS,
        [deltas(change(2, **{member: ...})) for member in ("_id", "_ts", "_deleted", "_table", "_component")], requests=2, **BROKEN_LOG)
entries("members that nobody knows", SNAPSHOT, [{**page(document(_future=1, extra=[])), "future": {"values": [1]}}],
        scan="right")
entries("a timestamp of another type", SNAPSHOT,
        [text(page(document(_ts="\x01"))).replace(b'"\\u0001"', value.encode()) for value in WRONG + ["0"]], scan="HV00M")
entries("a document of another table", SNAPSHOT,
        [page(document(_table="secrets")), page(document(_component="billing")), page(document(), document(2, _table="secrets"))],
        scan="HV00M", write="HV00M")
entries("a document that is said to be deleted", SNAPSHOT, [page(document(_deleted=True))], scan="HV00M", write="HV00M")

# ---------------------------------------------------------------- walks


def walk(*pages):
    """The pages of a walk, and then the last one for ever."""
    return lambda line, request, nth: pages[min(nth, len(pages) - 1)]


def more(*docs, cursor="A", **details):
    return page(*docs, cursor=cursor, **details)


def numbered(make):
    return lambda line, request, nth: make(nth)


LAST = page(document(9))

entry("another snapshot than the first page's", {SNAPSHOT: walk(more(document(1)), {**LAST, "snapshot": HEAD + 1})},
      requests=2, **BROKEN_WALK)
entry("an older snapshot than the first page's", {SNAPSHOT: walk(more(document(1)), {**LAST, "snapshot": HEAD - 1})},
      requests=2, **BROKEN_WALK)
entry("a cursor on the last page", {SNAPSHOT: {**PAGE, "cursor": "A"}}, **BROKEN_WALK)
entry("a document newer than its snapshot", {SNAPSHOT: page(document(_ts=HEAD + 1))}, **BROKEN_WALK)
entry("ids that descend", {SNAPSHOT: page(document(2), document(1))}, **BROKEN_WALK)
entry("an id twice in a page", {SNAPSHOT: page(document(1), document(1))}, **BROKEN_WALK)
entry("ids that descend from page to page", {SNAPSHOT: walk(more(document(5)), page(document(4)))}, requests=2, **BROKEN_WALK)
entry("a page that is answered twice",
      {SNAPSHOT: walk(more(document(1), document(2)), more(document(1), document(2)), LAST)}, requests=3, **BROKEN_WALK)
entry("a page that is answered twice with another cursor",
      {SNAPSHOT: walk(more(document(1), document(2)), more(document(1), document(2), cursor="B"), LAST)}, requests=3, **BROKEN_WALK)
entry("a page that overlaps the one before",
      {SNAPSHOT: walk(more(document(1), document(2)), more(document(2), document(3), cursor="B"), LAST)}, requests=3, **BROKEN_WALK)
entry("the same cursor for ever", {SNAPSHOT: numbered(lambda n: more(document(n + 1)))}, requests=3, **BROKEN_WALK)
entry("the same cursor for ever and nothing else", {SNAPSHOT: more()}, requests=3, **BROKEN_WALK)
entry("cursors in a circle", {SNAPSHOT: numbered(lambda n: more(cursor="AB"[n % 2]))}, requests=6, **BROKEN_WALK)
entry("a long circle of cursors", {SNAPSHOT: numbered(lambda n: more(document(n % 7 + 1), cursor=str(n % 7)))}, requests=9, **BROKEN_WALK)
entry("empty pages for ever", {SNAPSHOT: numbered(lambda n: more(cursor=str(n)))}, requests=6, **BROKEN_WALK)
entry("empty pages for ever after the first one",
      {SNAPSHOT: numbered(lambda n: more(*[document(1)] * (n == 0), cursor=str(n)))}, requests=7, **BROKEN_WALK)
entry("one empty page",
      {SNAPSHOT: lambda line, request, nth: (
          page(*[document()] * nth, snapshot=request.json.get("snapshot", HEAD), cursor=None if nth else "A") if nth < 2 else None)},
      scan="right", write="right", follow="right", requests=2)
entry("cursors of 500 kB", {SNAPSHOT: walk(more(document(1), cursor="c" * 500_000), LAST)}, scan="right 2", requests=2)

# ---------------------------------------------------------------- documents by their _id

def answer(value, **members):
    return {"status": "success", "value": value, **members}


def plain(n=1, **members):
    return {name: value for name, value in document(n, **members).items() if name not in ("_component", "_table", "_ts")}


entries("an answer that is no list of the document", QUESTION, [
    answer(None), answer({}), answer("text"), answer(7.5), answer(-1), answer(1e300), answer([]), answer([plain(1), plain(2)]), answer([plain(1), None]),
    answer([plain(2, name="Mallory")]), answer([{"name": "Mallory"}]), answer([plain(1, _id=7)]), answer([plain(1, _id="")]), answer([[plain(1)]]),
    answer([7]), answer(["x"]), answer([False]), answer([plain(1, _id="j57\\u0000")]), answer(plain(1)), answer([plain(1)] * 3000)])
entries("a success that is none", QUESTION, [
    {"status": "success"}, {"value": [plain(1)]}, {"status": "done", "value": [plain(1)]}, {"status": None, "value": [plain(1)]},
    {"status": "error", "value": [plain(2, name="Mallory")], "errorMessage": "no"}, [], {}, {"status": "error"}])
entries("an error in prose", QUESTION, [
    {"status": "error", "errorMessage": f"[Request ID: 0a1b2c3d4e5f6071] Server Error\nUncaught Error: {words}\n    at handler"} for words in (
        "You do not have permission to perform this operation (deployment:data:view).", "Couldn't find system module '_system/frontend/listById.js'.",
        "Too many documents read in a single function execution (limit: 32000).", "Function execution timed out (maximum duration: 1s)", "x" * 70000, KEY)])

# ---------------------------------------------------------------- the change log

entry("the same delta cursor for ever", {DELTAS: deltas(cursor=HEAD + 5, more=True)}, requests=3, **BROKEN_LOG)
entry("a delta cursor that stays where it was",
      {DELTAS: lambda line, request, nth: deltas(cursor=request.json["cursor"], more=True)}, requests=2, **BROKEN_LOG)
entry("a delta cursor that runs behind",
      {DELTAS: lambda line, request, nth: deltas(cursor=request.json["cursor"] - 1000)}, write="HV00M", follow="HV00M", changes="22023", requests=2)
entry("a delta cursor that runs behind, and more",
      {DELTAS: lambda line, request, nth: deltas(cursor=request.json["cursor"] - 1000, more=True)}, requests=2, **BROKEN_LOG)
entry("a delta cursor of zero", {DELTAS: deltas(cursor=0)}, write="HV00M", follow="HV00M", changes="22023", requests=2)
entry("a delta cursor one further for ever",
      {DELTAS: lambda line, request, nth: deltas(cursor=request.json["cursor"] + 1, more=True)}, write="HV00M", follow="right", changes="HV00M",
      requests=40)
entry("delta cursors in a circle", {DELTAS: numbered(lambda n: deltas(cursor=HEAD + 5 + n % 2, more=True))}, requests=4, **BROKEN_LOG)
entry("a long run of empty pages whose cursors move",
      {DELTAS: lambda line, request, nth: deltas(cursor=request.json["cursor"] + 1_000_000, more=True) if nth < 300 else None},
      write="right", follow="right", changes="right 0", requests=310)
entries("a change at or below the cursor", DELTAS, [deltas(change(2, ts=HEAD)), deltas(change(2, ts=HEAD - 5)),
                                                    deltas(change(2, ts=1)), deltas(change(2, ts=0)), deltas(change(2, ts=-1))],
        requests=2, **BROKEN_LOG)
entry("changes that descend", {DELTAS: deltas(change(2, ts=HEAD + 6), change(3, ts=HEAD + 5))}, requests=2, **BROKEN_LOG)
entry("a change beyond the page's cursor", {DELTAS: deltas(change(2, ts=HEAD + 11))}, requests=2, **BROKEN_LOG)
entry("a change of another table", {DELTAS: deltas(change(2, _table="secrets"))}, requests=2, **BROKEN_LOG)
entry("a change of the row that is written", {DELTAS: deltas(change(1, name="Adam"))}, write="40001", changes="right 1", requests=2)
entry("changes of other rows", {DELTAS: lambda line, request, nth: deltas(change(2), change(3, ts=HEAD + 2)) if nth == 0 else None},
      write="right", follow="right", changes="right 2", requests=9)

entries("a head that is none", QUERY_TS,
        [b"", b"5", [], {}, {"ts": 5}, {"ts": "####"}, {"ts": "AAAA"}, {"ts": "//////////8="}, {"ts": "A" * 900_000},
         lambda line: (line.answer(500), ...)[1], lambda line: (line.answer(302), ...)[1]], follow="right|HV00M",
        requests=9)
def after_write(bad):
    """The change log is as it should be until something was written."""
    return each_after(lambda line, request: bad(line) if callable(bad) else bad)


def each_after(answer):
    written = set()

    def rule(line, request, nth):
        if request.path == WRITE:
            written.add(1)
            return None
        return answer(line, request) if written else None
    return {WRITE: rule, DELTAS: rule}


for name, bad in (
        ("changes that descend", deltas(change(2, ts=HEAD + 6), change(3, ts=HEAD + 5))),
        ("a change at the cursor", deltas(change(2, ts=HEAD))),
        ("a cursor that runs behind", deltas(cursor=5)),
        ("the same cursor for ever", deltas(cursor=HEAD + 10, more=True)),
        ("a change of another table", deltas(change(2, _table="secrets", ts=HEAD + 20), cursor=HEAD + 30)),
        ("half an answer", b'{"values":[{"_comp'), ("HTML", b"<html>"), ("nothing", b""),
        ("a body without end", does(endless_body)), ("a reset", does(lambda line: line.reset()))):
    entry("after a write: " + name, after_write(bad if not callable(bad) else lambda line, bad=bad: bad(line, None, 0)),
          write="08007", requests=9)
entry("5,000 changes of one moment",
      {DELTAS: lambda line, request, nth: b'{"values":[%s],"cursor":%d,"hasMore":false}'
       % (b",".join(text(change(n, ts=HEAD + 5, name=...)) for n in range(2, 5000)), HEAD + 10) if nth == 0 else None},
      write="right", requests=9)

# ---------------------------------------------------------------- sizes

entry("fifteen pages of 900 kB",
      {SNAPSHOT: numbered(lambda n: page(document(n + 1, name="x" * 900_000), cursor=str(n) if n < 14 else None))},
      scan="right 15", requests=15)
MANY = [b'{"_component":"","_table":"users","_ts":1,"_id":"j%07d"}' % n for n in range(17_000)]
entry("a page of 17,000 empty documents", {SNAPSHOT: b'{"values":[%s],"snapshot":%d,"cursor":null,"hasMore":false}'
                                           % (b",".join(MANY), HEAD)}, scan="right 17000")
entry("the same for a table of 1,200 columns",
      {SNAPSHOT: b'{"values":[%s],"snapshot":%d,"cursor":null,"hasMore":false}' % (b",".join(MANY), HEAD)},
      scan="right 17000", columns=", ".join(f"c{n} text" for n in range(1200)), memory_mb=24)
WIDE = {"f%d" % n: 0 for n in range(70_000)}
entry("a document of 70,000 fields",
      {SNAPSHOT: lambda line, request, nth: page(document(**WIDE), snapshot=request.json.get("snapshot", HEAD))}, scan="right",
      write="54000", follow="right", requests=2, memory_mb=64)

# ---------------------------------------------------------------- what a deployment has


def named(name, fields=("_creationTime", "_id", "id", "name")):
    return columns((name, fields))


NAMELESS = [{}, {"byComponent": None}, {"byComponent": []}, {"byComponent": {"": {}}}, {"byComponent": {"": [5]}},
            {"byComponent": {"": [{"columns": []}]}}, {"byComponent": {"": [{"name": "users"}]}},
            {"byComponent": {"": [{"name": 5, "columns": []}]}}, [], b"5", b"null", b'"users"']
entries("a list of tables of another shape", COLUMNS, NAMELESS, imports="HV00M")
entries("names of tables that cannot be names", COLUMNS,
        [named("x" * 65_536), named(""), named("a b"), named("a\"b; DROP TABLE users; --"), named("\u00e4"), named("_system"),
         text(named("a")).replace(b'"a"', b'"a\\u0000b"'), text(named("a")).replace(b'"a"', b'"\\ud800"'),
         text(named("a")).replace(b'"a"', b'"\xff"'), named("x" * 65)], imports="HV00M")
entries("names of components that cannot be names", COLUMNS,
        [{"byComponent": {name: [{"name": "users", "columns": ["_id", "a", "b"]}]}} for name in ("x" * 65_536, "a b", "../..", "/")],
        imports="HV00M")
entries("names of fields that cannot be names", COLUMNS,
        [named("users", ("_creationTime", "_id", odd)) for odd in ("x" * 65_536, "a\nb", "$x", "\u00e4")], imports="HV00M|right")
entry("a table twice", {COLUMNS: columns(("users", ("_id", "_creationTime", "a")), ("users", ("_id", "_creationTime", "b")))},
      imports="HV00M")
entry("a million tables",
      {COLUMNS: b'{"byComponent":{"":[%s]}}' % b",".join(b'{"name":"t%d","columns":["_id"]}' % n for n in range(1_000_000))},
      imports="HV00M|54000", limits={**FAST, "max_response_size": "64MB"}, memory_mb=128)
entry("an empty table that is not listed", {SNAPSHOT: page(), COLUMNS: columns()}, scan="HV00R", requests=2)
entry("an empty table and a list without end", {SNAPSHOT: page(), COLUMNS: does(endless_body)}, scan="54000", requests=2)
entry("an empty table among 200,000",
      {SNAPSHOT: page(), COLUMNS: b'{"byComponent":{"":[%s]}}' % b",".join([b'{"name":"t","columns":["_id"]}'] * 200_000)},
      scan="HV00M", limits={**FAST, "max_response_size": "64MB"}, requests=2, memory_mb=32)
entry("schemas of 20 MB", {SCHEMAS: b"[" + b"1," * 10_000_000 + b"1]"}, imports="right",
      limits={**FAST, "max_response_size": "64MB"}, memory_mb=96)
entries("schemas that are refused", SCHEMAS,
        [lambda line, code=code: (line.answer(code), ...)[1] for code in (400, 404, 500, 503)], imports="right", requests=1)
entry("200,000 components",
      {COLUMNS: b'{"byComponent":{%s}}' % b",".join(b'"c%d":[]' % n for n in range(200_000))}, imports="HV00M",
      limits={**FAST, "max_response_size": "8MB"}, memory_mb=64)
entry("a table of 60,000 columns",
      {COLUMNS: named("users", ["_creationTime", "_id"] + ["c%d" % n for n in range(60_000)])}, imports="HV00M|54000|right",
      memory_mb=64)
entry("a schema of 20,000 required fields",
      {SCHEMAS: {"": {"users": schema(_id={}, _creationTime={}, **{"c%d" % n: {} for n in range(20_000)})}}},
      imports="HV00M|54000|right", memory_mb=64)
entry("schemas of another shape", {SCHEMAS: each([b"5", [], {"": []}, {"": {"users": 5}}, b"null"])}, variants=5,
      imports="HV00M")
entry("a declared schema of another shape",
      {DECLARED: each([b"5", [], {"schemaValidation": True, "tables": {}}, {"schemaValidation": True, "tables": [5, {}]},
                       {"schemaValidation": True, "tables": [{"tableName": "users", "documentType": {"type": "object", "value": 5}}]}])},
      variants=5, imports="right")
entry("a first page without end of a table whose fields are not known",
      {COLUMNS: named("users", ("_creationTime", "_id")), SNAPSHOT: does(endless_body)}, imports="54000", requests=2)
entry("a first page of 40,000 different fields",
      {COLUMNS: named("users", ("_creationTime", "_id")),
       SNAPSHOT: page(*(document(n, **{"f%d" % (n * 1000 + i): 0 for i in range(1000)}) for n in range(40)))},
      imports="right", requests=3, memory_mb=64)
entry("a first page whose documents are of another table",
      {COLUMNS: named("users", ("_creationTime", "_id")), SNAPSHOT: page(document(_table="secrets"))}, imports="HV00M", requests=2)


# ---------------------------------------------------------------- serving

def describe(port):
    entry = port.entry
    return {"name": entry.name, "use": port.use, "port": port.number, "outcome": entry.outcomes[port.use],
            "requests": entry.requests, "variants": entry.variants, "columns": entry.columns,
            "limits": SHORT_WRITE if entry.limits is SHORT and port.use == "write" else entry.limits,
            "memory_mb": entry.memory_mb, "scheme": entry.scheme}


def count(port):
    routes = set(port.entry.rules_of(port.use)) or {"connection"}
    return sum(port.nth.get(route, 0) for route in routes)


def main():
    ports = [Port(entry, use, use in FOLLOWED) for entry in ENTRIES for use in entry.outcomes]
    serve(ports)
    print(json.dumps({"key": KEY, "lines": [describe(port) for port in ports]}), flush=True)
    for command in sys.stdin:
        word, *uses = command.split()
        if word == "counts":
            print(json.dumps([count(port) for port in ports]), flush=True)
        elif word in ("hostile", "sane"):
            print(json.dumps([port.turn(word == "sane") if port.use in uses else 0 for port in ports]), flush=True)
        elif word == "news":
            print(json.dumps([port.good.tell_news() for port in ports if port.use in FOLLOWED]), flush=True)


if __name__ == "__main__":
    main()
