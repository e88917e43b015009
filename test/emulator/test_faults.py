"""Faults do what they say, to the requests they are meant for."""

import gzip
import http.client
import json
import socket
import threading
import time
import unittest

from testing import ADMIN, EmulatorTest, wait_until


class Faults(EmulatorTest):

    def setUp(self):
        super().setUp()
        self.insert("users", *({"n": i} for i in range(3)))
        self.insert("posts", {"n": 7})

    def fault(self, action, **spec):
        return self.control("faults", {"action": action, **spec})["ids"]

    def page(self, table="users"):
        return self.post("/api/list_snapshot", {"tableName": table})

    def raw(self, table="users"):
        """A request on a socket of its own."""
        body = json.dumps({"tableName": table}).encode()
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.addCleanup(sock.close)
        sock.sendall(b"POST /api/list_snapshot HTTP/1.1\r\nauthorization: " + ADMIN["Authorization"].encode()
                     + b"\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
                     % (len(body), body))
        return sock

    def read(self, sock):
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
        return data

    def journal_faults(self):
        return [entry["fault"] for entry in self.control("journal")["requests"]]

    def test_status_skip_count_and_path(self):
        self.fault("status", status=503, code="OptimisticConcurrencyControlFailure", skip=1, count=2,
                   path="/api/list_snapshot", headers={"x-y": "z"})
        self.assertEqual(self.get("/api/get_table_column_names").status, 200)
        answers = [self.page() for _ in range(4)]
        self.assertEqual([answer.status for answer in answers], [200, 503, 503, 200])
        self.assertEqual(answers[1].code, "OptimisticConcurrencyControlFailure")
        self.assertEqual(answers[1].headers["x-y"], "z")
        self.assertEqual(self.journal_faults(), [None, None, "status", "status", None])

    def test_method_table_and_for_ever(self):
        self.fault("status", status=500, method="POST", where={"table": "users"}, count=-1)
        self.assertEqual(self.get("/api/list_snapshot?tableName=users").status, 200)
        self.assertEqual(self.page("posts").status, 200)
        self.assertEqual([self.page().status for _ in range(3)], [500] * 3)
        selection = {"_other": "excluded", "": {"_other": "excluded", "users": {"_other": "included"}}}
        self.assertEqual(self.post("/api/list_snapshot", {"selection": selection}).status, 500)
        answer = self.post("/api/streaming_import/apply_fivetran_operations",
                           [{"table": "users", "operation": "Upsert", "row": {}}])
        self.assertEqual(answer.status, 500)
        self.control("faults", method="DELETE")
        self.assertEqual(self.page().status, 200)

    def test_raw_bodies(self):
        self.fault("status", status=502, body="<html>bad gateway</html>", content_type="text/html")
        answer = self.page()
        self.assertEqual((answer.status, answer.body, answer.headers["content-type"]),
                         (502, b"<html>bad gateway</html>", "text/html"))
        self.fault("status", status=408)
        answer = self.page()
        self.assertEqual((answer.status, answer.body), (408, b""))
        self.fault("body", body_base64="AP8=")
        self.assertEqual(self.page().body, b"\x00\xff")
        self.fault("brackets", n=1000)
        self.assertEqual(self.page().body, b"[" * 1000)

    def test_gzip_bomb(self):
        self.fault("gzip_bomb", megabytes=3)
        answer = self.page()
        self.assertEqual(answer.headers["content-encoding"], "gzip")
        self.assertGreater(len(gzip.decompress(answer.body)), 3 << 20)
        self.assertLess(len(answer.body), 20_000)

    def test_cut(self):
        self.fault("cut", after_bytes=5)
        data = self.read(self.raw())
        head, body = data.split(b"\r\n\r\n", 1)
        self.assertEqual(body, b'{"val')
        self.assertNotIn(b"content-length: 5\r\n", head)

    def test_reset(self):
        for after in (0, 10):
            self.fault("reset", after_bytes=after)
            with self.assertRaises(ConnectionResetError):
                self.read(self.raw())

    def test_stall_of_headers_ends_when_faults_are_cleared(self):
        self.fault("stall", at="headers")
        sock = self.raw()
        wait_until(lambda: "stall" in self.journal_faults())
        sock.settimeout(0.05)
        with self.assertRaises(TimeoutError):
            sock.recv(1)
        self.control("faults", method="DELETE")
        sock.settimeout(10)
        self.assertTrue(self.read(sock).startswith(b"HTTP/1.1 200"))

    def test_stall_of_the_body(self):
        self.fault("stall", at="body", after_bytes=7, seconds=0.01)
        data = self.read(self.raw())
        self.assertTrue(data.endswith(b'"hasMore":false}'))
        self.fault("stall", at="body", after_bytes=7)
        sock = self.raw()
        data = b""
        while not data.endswith(b'\r\n\r\n{"value'):
            data += sock.recv(100)
        sock.close()

    def test_stall_of_accept(self):
        self.fault("stall", at="accept")
        sock = self.raw()
        sock.settimeout(0.05)
        with self.assertRaises(TimeoutError):
            sock.recv(1)
        self.assertEqual(self.page().status, 200)    # other connections go on
        self.control("faults", method="DELETE")
        sock.settimeout(10)
        self.assertTrue(self.read(sock).startswith(b"HTTP/1.1 200"))

    def test_drip(self):
        self.fault("drip", bytes=50, interval_ms=1)
        self.assertEqual(self.page().body, self.page().body)

    def test_wrong_table_and_edit(self):
        self.fault("wrong_table", table="secrets")
        self.assertEqual({row["_table"] for row in self.page().json()["values"]}, {"secrets"})
        self.fault("edit", find='"hasMore":false', replace='"hasMore":"no"')
        self.assertEqual(self.page().json()["hasMore"], "no")

    def test_ignore_filter(self):
        self.fault("ignore_filter", count=-1)
        rows = self.rows(tableName="users")
        self.assertEqual({row["_table"] for row in rows}, {"users", "posts"})

    def test_apply_then(self):
        clear = ("PUT", "/api/streaming_import/clear_tables", {"tableNames": ["users"]})
        self.fault("apply_then_cut")
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.request(*clear)
        self.connection.close()
        self.assertEqual(self.rows(tableName="users"), [])
        self.insert("users", {"n": 1})
        self.fault("apply_then_status", status=500)
        self.assertEqual(self.request(*clear).status, 500)
        self.assertEqual(self.rows(tableName="users"), [])
        self.fault("status", status=500)
        self.insert("users", {"n": 1})
        self.assertEqual(self.request(*clear).status, 500)
        self.assertEqual(len(self.rows(tableName="users")), 1)    # refused before anything was done

    def test_close_after(self):
        """The answer is whole; then the line is closed, at once or under the next request."""
        clear = ("PUT", "/api/streaming_import/clear_tables", {"tableNames": ["users"]})
        for at in ("answer", "next"):
            self.connection.close()
            self.fault("close_after", at=at)
            answer = self.page()
            self.assertEqual((answer.status, len(answer.json()["values"])), (200, 3))
            self.assertNotIn("connection", answer.headers)
            with self.assertRaises((http.client.RemoteDisconnected, ConnectionError)):
                if at == "answer":
                    wait_until(lambda: not self.connection.sock.recv(1, socket.MSG_PEEK))
                self.request(*clear)
            self.connection.close()
        self.assertEqual([entry["path"] for entry in self.control("journal")["requests"]], ["/api/list_snapshot"] * 2)
        self.assertEqual(self.request(*clear).status, 200)

    def test_a_write_under_every_fault(self):
        """Before the work nothing is done; after it everything, once. The journal tells."""
        write = ("POST", "/api/streaming_import/import_airbyte_records",
                 {"tables": {"w": {"jsonSchema": {}}}, "messages": [{"tableName": "w", "data": {}}]})
        for action, spec in (("status", {"status": 408}), ("status", {"status": 500}), ("status", {"status": 502, "body": "x"}),
                             ("status", {"status": 503, "code": "OptimisticConcurrencyControlFailure"}),
                             ("status", {"status": 503, "code": "CommitterFullError"}), ("reset", {})):
            self.fault(action, **spec)
            if action == "reset":
                with self.assertRaises(ConnectionError):
                    self.request(*write)
                self.connection.close()
            else:
                self.assertEqual(self.request(*write).status, spec["status"])
            entry = self.control("journal")["requests"][-1]
            self.assertEqual((entry["commits"], entry["body"]), ([], write[2]))
        for count, spec in enumerate(({"status": 408}, {"status": 500}, {"status": 502, "body": "x"}), 1):
            self.fault("apply_then_status", **spec)
            self.assertEqual(self.request(*write).status, spec["status"])
            self.assertEqual(len(self.rows(tableName="w")), count)
        self.fault("apply_then_cut", skip=1)    # on a connection that has carried a request before
        self.assertEqual(self.request(*write).status, 200)
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionError)):
            self.request(*write)
        entries = self.control("journal")["requests"][-2:]
        self.assertEqual(entries[0]["connection"], entries[1]["connection"])
        self.assertEqual([len(entry["commits"]) for entry in entries], [1, 1])
        self.connection.close()
        self.fault("stall", at="headers")    # a slow answer: the work is done meanwhile
        thread = threading.Thread(target=self.request, args=write)
        thread.start()
        wait_until(lambda: self.emulator.journal.describe()[-1]["fault"] == "stall")
        self.assertEqual(len(self.emulator.journal.describe()[-1]["commits"]), 1)
        self.emulator.faults.clear()
        thread.join()

    def test_mutate_between_pages(self):
        self.control("config", {"page_limit": 1})
        self.fault("mutate", count=-1, path="/api/list_snapshot",
                   ops=[{"op": "increment_all", "table": "users", "field": "n", "by": 10}])
        rows = self.rows(tableName="users")
        self.assertEqual(sorted(row["n"] for row in rows), [10, 11, 12])    # the snapshot of the first page
        self.control("faults", method="DELETE")
        self.assertGreater(min(row["n"] for row in self.rows(tableName="users")), 30)

    def test_delay_combines_with_others(self):
        self.fault("delay", ms=30)
        self.fault("status", status=429, code="TooManyWrites")
        began = time.monotonic()
        self.assertEqual(self.page().code, "TooManyWrites")
        self.assertGreaterEqual(time.monotonic() - began, 0.03)
        self.assertEqual(self.journal_faults(), ["delay+status"])

    def test_lists(self):
        ids = self.control("faults", [{"action": "delay", "ms": 1, "count": 5}, {"action": "cut"}])["ids"]
        self.assertEqual(len(set(ids)), 2)
        listed = self.control("faults")["faults"]
        self.assertEqual([(fault["id"], fault["action"], fault["count"]) for fault in listed],
                         [(ids[0], "delay", 5), (ids[1], "cut", 1)])

    def test_latency_of_the_whole_server(self):
        self.control("config", {"extra_latency_ms": 20})
        began = time.monotonic()
        self.page()
        self.assertGreaterEqual(time.monotonic() - began, 0.02)


class ManyClients(EmulatorTest):

    def test_concurrent_walks_and_writes(self):
        """Every walk sees one snapshot while increments go on: all rows carry the same number."""
        self.control("config", {"page_limit": 7})
        self.insert("t", *({"n": 0} for _ in range(50)))
        stop = threading.Event()
        failures = []

        def write():
            while not stop.is_set():
                self.emulator.control.mutate([{"op": "increment_all", "table": "t", "field": "n", "by": 1}])

        def read():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            for _ in range(10):
                args, numbers = {"tableName": "t"}, []
                while True:
                    connection.request("POST", "/api/list_snapshot", json.dumps(args),
                                       {**ADMIN, "Content-Type": "application/json"})
                    page = json.loads(connection.getresponse().read())
                    numbers += [row["n"] for row in page["values"]]
                    if not page["hasMore"]:
                        break
                    args = {**args, "snapshot": page["snapshot"], "cursor": page["cursor"]}
                if len(numbers) != 50 or len(set(numbers)) != 1:
                    failures.append(numbers)
            connection.close()

        writer = threading.Thread(target=write)
        readers = [threading.Thread(target=read) for _ in range(4)]
        for thread in [writer, *readers]:
            thread.start()
        for thread in readers:
            thread.join()
        stop.set()
        writer.join()
        self.assertEqual(failures, [])

    def test_the_change_log_rebuilds_the_tables(self):
        """Snapshot plus deltas equals the database, whatever was written meanwhile."""
        self.insert("t", *({"n": i} for i in range(20)))
        page = self.walk(tableName="t")
        mirror = {row["_id"]: row["n"] for one in page for row in one["values"]}
        ids = list(mirror)
        self.control("config", {"delta_limit": 3})
        for i, one in enumerate(ids):
            op = {"op": "delete", "table": "t", "id": one} if i % 3 == 0 else {
                "op": "patch", "table": "t", "id": one, "doc": {"n": i * 100}}
            self.mutate(op, {"op": "insert", "table": "t", "doc": {"n": -i}}, {"op": "system", "count": i % 4})
        for row in self.all_deltas(page[0]["snapshot"], tableName="t"):
            mirror.pop(row["_id"], None)
            if not row["_deleted"]:
                mirror[row["_id"]] = row["n"]
        self.assertEqual(mirror, {row["_id"]: row["n"] for row in self.rows(tableName="t")})


if __name__ == "__main__":
    unittest.main()
