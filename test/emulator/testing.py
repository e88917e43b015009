"""What the test files share: an emulator in this process, and a small HTTP client."""

import base64
import http.client
import json
import struct
import time
import unittest

from emulator import DEFAULT_ADMIN_KEY, DEFAULT_READ_ONLY_KEY, Emulator
from server import Server

ADMIN = {"Authorization": "Convex " + DEFAULT_ADMIN_KEY}
READ_ONLY = {"Authorization": "Convex " + DEFAULT_READ_ONLY_KEY}
JSON = {"Content-Type": "application/json"}
MIN_ID = "0400000000000000000000000000248"


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json()["code"] if self.body else None


def wait_until(condition, seconds=10):
    """Polls a condition; its value when it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("the condition did not come true in time")


class EmulatorTest(unittest.TestCase):
    """One emulator a test, empty unless `seed` says otherwise."""

    seed = "none"

    def setUp(self):
        self.emulator = Emulator(random_seed=7)
        self.emulator.seed(self.seed)
        self.server = Server(self.emulator.handle, self.emulator.faults.on_accept, self.emulator.store.now_ns)
        self.port = self.server.listen("127.0.0.1", 0)
        self.server.start()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.addCleanup(self.server.stop)
        self.addCleanup(self.connection.close)
        self.addCleanup(self.emulator.faults.clear)

    # ------------------------------------------------------------ requests

    def request(self, method, path, body=None, headers=None):
        if isinstance(body, (dict, list)):
            headers = {**JSON, **(ADMIN if headers is None else headers)}
            body = json.dumps(body).encode()
        self.connection.request(method, path, body, ADMIN if headers is None else headers)
        return Answer(self.connection.getresponse())

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def control(self, path, body=None, method=None):
        answer = self.request(method or ("GET" if body is None else "POST"), "/_emulator/" + path, body, {})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def refused(self, answer, status, code):
        self.assertEqual((answer.status, answer.code), (status, code), answer.body)
        self.assertEqual(sorted(answer.json()), ["code", "message"])
        self.assertNotIn("retry-after", answer.headers)

    # ------------------------------------------------------------ data

    def mutate(self, *ops):
        return self.control("mutate", {"ops": list(ops)})

    def insert(self, table, *documents, component=""):
        return self.mutate(*({"op": "insert", "component": component, "table": table, "doc": document}
                             for document in documents))

    def head(self):
        return self.control("state")["head"]

    def walk(self, **args):
        """Every page of a list_snapshot walk."""
        pages = []
        args = {"format": "convex_encoded_json", **args}
        while True:
            answer = self.post("/api/list_snapshot", args)
            self.assertEqual(answer.status, 200, answer.body)
            page = answer.json()
            pages.append(page)
            self.assertEqual(page["cursor"] is None, not page["hasMore"])
            if not page["hasMore"]:
                return pages
            args = {**args, "snapshot": page["snapshot"], "cursor": page["cursor"]}

    def rows(self, **args):
        return [row for page in self.walk(**args) for row in page["values"]]

    def deltas(self, cursor, **args):
        answer = self.post("/api/document_deltas", {"format": "convex_encoded_json", "cursor": cursor, **args})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def all_deltas(self, cursor, **args):
        rows, page = [], {"cursor": cursor, "hasMore": True}
        while page["hasMore"]:
            page = self.deltas(page["cursor"], **args)
            rows += page["values"]
        return rows


PAGINATED = "_system/frontend/paginatedTableDocuments"


def encode_filter(clauses=(), **more):
    """The argument `filters`."""
    return base64.b64encode(json.dumps({"clauses": list(clauses), **more}).encode()).decode()


def clause(field, op, *value, **more):
    """A clause of a filter; without a value it has none."""
    return {"field": field, "op": op, **({"value": value[0]} if value else {}), **more}


def ts_text(ts):
    return base64.b64encode(struct.pack("<Q", ts)).decode()


class QueryTest(EmulatorTest):
    """Functions, called as a client calls them."""

    def call(self, path, args, headers=None, **more):
        """The answer of /api/query, or of query_at_ts when `ts` is given, as it is."""
        route = "/api/query_at_ts" if "ts" in more else "/api/query"
        if isinstance(more.get("ts"), int):
            more["ts"] = ts_text(more["ts"])
        answer = self.post(route, {"path": path, "args": args, "format": "convex_encoded_json", **more}, headers)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def value(self, path, args, **more):
        answer = self.call(path, args, **more)
        self.assertEqual(answer["status"], "success", answer)
        return answer["value"]

    def error(self, path, args, headers=None, **more):
        """The text of an error without its first line."""
        answer = self.call(path, args, headers, **more)
        self.assertEqual(answer["status"], "error", answer)
        first, _, text = answer["errorMessage"].partition("\n")
        self.assertRegex(first, r"\A\[Request ID: [0-9a-f]{16}\] Server Error\Z")
        return text

    @staticmethod
    def page_args(table="t", filters=None, cursor=None, items=100, **more):
        return {"table": table, "filters": filters, "paginationOpts": {"numItems": items, "cursor": cursor}, **more}

    def page(self, table="t", filters=None, cursor=None, items=100, **more):
        args = {name: more.pop(name) for name in ("componentId",) if name in more}
        return self.value(PAGINATED, self.page_args(table, filters, cursor, items, **args), **more)

    def all_rows(self, table="t", filters=None, items=100, **more):
        """The documents of all pages."""
        rows, page = [], {"isDone": False, "continueCursor": None}
        while not page["isDone"]:
            page = self.page(table, filters, page["continueCursor"], items, **more)
            rows += page["page"]
        return rows

    def declare(self, component="", **indexes):
        """table=[(name, fields..), ..] becomes the active schema."""
        schema = {"tables": [{"tableName": table, "documentType": None, "searchIndexes": [], "vectorIndexes": [],
                              "indexes": [{"indexDescriptor": name, "fields": fields} for name, *fields in of_table]}
                             for table, of_table in indexes.items()], "schemaValidation": False}
        self.control("config", {"component_schemas": {component: schema}} if component else {"schema": schema})
        return schema

    def last_request(self):
        return self.control("journal")["requests"][-1]
