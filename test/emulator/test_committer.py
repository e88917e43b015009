"""Two writers at a time: which of them loses, and what is left of its request."""

import http.client
import itertools
import json
import threading
import time
import unittest

from test_imports import PREFIX, ImportTest
from testing import ADMIN, JSON, Answer, wait_until


class Sending:
    """A request on a connection of its own, in a thread."""

    def __init__(self, port, method, path, body):
        self.port = port
        self.request = method, path, json.dumps(body), {**ADMIN, **JSON}
        self.found = None
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _send(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(*self.request)
        self.found = Answer(connection.getresponse())
        connection.close()

    def answer(self):
        self.thread.join(60)
        return self.found


class ConcurrentTest(ImportTest):

    def setUp(self):
        super().setUp()
        self.create()
        self.put("add_primary_key_indexes", {"indexes": {"t": [["id"]]}})
        self.request("GET", PREFIX + "primary_key_indexes_ready", {"tables": ["t"]})
        self.fivetran(*(("Upsert", {"id": key, "n": 0}) for key in range(5)))
        self.control("config", {"committer": "concurrent"})
        self.addCleanup(self.control, "config", {"commit_hold": False})

    def sending(self, route, body, method="POST"):
        return Sending(self.port, method, PREFIX + route, body)

    def upsert(self, *keys, table="t", operation="Upsert", **fields):
        return self.sending("apply_fivetran_operations", [
            {"table": table, "operation": operation, "row": {"id": key, **fields}} for key in keys])

    def record(self, *keys, key=(("id",),), table="t", **fields):
        return self.sending("import_airbyte_records", {
            "tables": {table: {"primaryKey": key, "jsonSchema": {}}},
            "messages": [{"tableName": table, "data": {"id": each, **fields}} for each in keys]})

    def hold(self, *makers):
        """Begins requests one after the other and keeps them from committing."""
        self.control("config", {"commit_hold": True})
        sent = []
        for number, make in enumerate(makers, 1):
            sent.append(make())
            wait_until(lambda number=number: self.control("state")["open_transactions"] == number)
        return sent

    def release(self, sent):
        self.control("config", {"commit_hold": False})
        return [each.answer() for each in sent]

    def race(self, *makers):
        """How many of the requests that ran side by side were refused as conflicts."""
        answers = self.release(self.hold(*makers))
        for answer in answers:
            if answer.status != 200:
                self.refused(answer, 503, "OptimisticConcurrencyControlFailure")
        return sum(answer.status == 503 for answer in answers)

    def values(self, table="t"):
        return {row["id"]: row.get("n") for row in self.documents(table)}


class Conflicts(ConcurrentTest):

    def test_two_replaces_of_one_row(self):
        self.assertEqual(self.race(lambda: self.upsert(1, n=1), lambda: self.upsert(1, n=2)), 1)
        self.assertIn(self.values()[1], (1, 2))

    def test_every_pair_of_operations_on_one_row(self):
        for first, second in (("Update", "Update"), ("Upsert", "Update"), ("HardDelete", "Update"),
                              ("HardDelete", "HardDelete")):
            self.fivetran(("Upsert", {"id": 1, "n": 0}))
            self.assertEqual(self.race(lambda: self.upsert(1, n=1, operation=first),
                                       lambda: self.upsert(1, n=2, operation=second)), 1, (first, second))

    def test_both_routes(self):
        self.assertEqual(self.race(lambda: self.record(1, n=1), lambda: self.upsert(1, n=2)), 1)
        self.assertEqual(self.race(lambda: self.record(2, n=1), lambda: self.record(2, n=2)), 1)

    def test_the_absence_of_a_key_is_read(self):
        self.assertEqual(self.race(lambda: self.upsert(77, n=1), lambda: self.upsert(77, n=2)), 1)
        self.assertEqual(self.race(lambda: self.record(78, n=1), lambda: self.record(78, n=2)), 1)
        self.assertEqual(len(self.values()), 7)

    def test_different_rows_do_not_conflict(self):
        self.assertEqual(self.race(lambda: self.upsert(1, n=1), lambda: self.upsert(2, n=2),
                                   lambda: self.upsert(80, n=3), lambda: self.record(81, n=4)), 0)
        self.assertEqual(self.values(), {0: 0, 1: 1, 2: 2, 3: 0, 4: 0, 80: 3, 81: 4})

    def test_appended_rows_do_not_conflict(self):
        self.assertEqual(self.race(*[lambda: self.record(9, key=None) for _ in range(3)]), 0)
        self.assertEqual(len(self.documents("t")), 8)

    def test_a_key_that_moves_away_or_here_was_read(self):
        """Both what a document was and what it became count."""
        moved = self.mutate({"op": "insert", "table": "t", "doc": {"id": 50.0}})["ids"][0]
        for number in (51.0, 50.0):
            sent = self.hold(lambda: self.upsert(50, n=1))
            self.mutate({"op": "patch", "table": "t", "id": moved, "doc": {"id": number}})
            self.refused(self.release(sent)[0], 503, "OptimisticConcurrencyControlFailure")

    def test_mutations_conflict_too_and_other_documents_do_not(self):
        sent = self.hold(lambda: self.upsert(1, n=1), lambda: self.upsert(2, n=1))
        row = next(row for row in self.control("dump?table=t")["documents"] if row["id"] == 1)
        self.mutate({"op": "patch", "table": "t", "id": row["_id"], "doc": {"other": True}},
                    {"op": "system"})
        first, second = self.release(sent)
        self.refused(first, 503, "OptimisticConcurrencyControlFailure")
        self.assertEqual((second.status, self.values()[1], self.values()[2]), (200, 0, 1))

    def test_what_only_reads_is_not_checked(self):
        """Rows that are as they should be already, and deletes of absent rows."""
        sent = self.hold(lambda: self.upsert(1, n=0), lambda: self.upsert(90, operation="HardDelete"))
        self.mutate({"op": "update_all", "table": "t", "doc": {"n": 7.0}})
        self.assertEqual([answer.status for answer in self.release(sent)], [200, 200])
        self.assertEqual(self.values()[1], 7)

    def test_one_row_of_many_is_enough(self):
        self.assertEqual(self.race(lambda: self.upsert(*range(5), n=1), lambda: self.upsert(4, 100, n=2)), 1)
        self.assertIn(self.values(), ({key: 1 for key in range(5)}, {0: 0, 1: 0, 2: 0, 3: 0, 4: 2, 100: 2}))

    def test_tables_and_indexes_are_read(self):
        """Fivetran's rows look for their index among those of all tables."""
        changes = (({"op": "create_table", "table": "other"}, self.upsert, 503),
                   ({"op": "create_table", "table": "another"}, self.record, 503),
                   ({"op": "index", "table": "other", "fields": ["a"]}, self.upsert, 503),
                   ({"op": "index", "table": "another", "fields": ["a"]}, self.record, 200),
                   ({"op": "index", "table": "t", "fields": ["id", "n"]}, self.record, 503))
        for number, (op, route, status) in enumerate(changes, 1):
            sent = self.hold(lambda: route(1, n=number))
            self.mutate(op)
            self.assertEqual(self.release(sent)[0].status, status, op)

    def test_one_of_two_makes_the_table(self):
        self.assertEqual(self.race(lambda: self.record(1, key=None, table="new"),
                                   lambda: self.record(2, key=None, table="new")), 1)
        self.assertEqual(len(self.documents("new")), 1)

    def test_a_cleared_table(self):
        sent = self.hold(lambda: self.upsert(1, n=1))
        self.accepted(self.put("clear_tables", {"tableNames": ["t"]}))
        answer = self.release(sent)[0]
        self.refused(answer, 503, "OptimisticConcurrencyControlFailure")
        self.assertIn("https://docs.convex.dev/database/indexes/", answer.json()["message"])
        self.assertEqual(self.documents("t"), [])

    def test_two_indexes_at_once(self):
        self.assertEqual(self.race(
            *(lambda table=table: self.sending("add_primary_key_indexes", {"indexes": {table: [["id"]]}}, "PUT")
              for table in ("a", "b"))), 1)

    def test_truncation_reads_its_range(self):
        self.fivetran(*(("Upsert", {"id": key, "fivetran": {"synced": 1000.0 * key}}) for key in range(5)))
        for synced, status in ((500.0, 503), (9000.0, 200)):
            sent = self.hold(lambda: self.sending("fivetran_truncate_table", {
                "tableName": "t", "deleteType": "HardDelete", "deleteBefore": "1970-01-01T00:00:02Z"}))
            self.mutate({"op": "insert", "table": "t", "doc": {"id": "x", "fivetran": {"synced": synced}}})
            self.assertEqual(self.release(sent)[0].status, status)

    def test_a_deployment_that_was_emptied(self):
        sent = self.hold(lambda: self.upsert(1, n=1), lambda: self.record(1, key=None))
        self.control("reset", {})
        for answer in self.release(sent):
            self.refused(answer, 503, "OptimisticConcurrencyControlFailure")
        self.assertEqual(self.control("state")["tables"], [])
        self.assertEqual(self.all_deltas(0), [])

    def test_messages(self):
        answers = self.release(self.hold(lambda: self.upsert(1, n=1), lambda: self.upsert(1, n=2)))
        message = max(answers, key=lambda answer: answer.status).json()["message"]
        row = next(row["_id"] for row in self.control("dump?table=t")["documents"] if row["id"] == 1)
        self.assertEqual(message, 'Documents read from or written to the "t" table changed while this mutation was being '
                         "run and on every subsequent retry. Another call to this mutation changed the document with ID "
                         f'"{row}". See https://docs.convex.dev/error#1')


class Requests(ConcurrentTest):

    def test_what_a_request_has_committed_stays(self):
        """Of a request that is three transactions the third conflicts."""
        self.control("config", {"max_tx_writes": 2})
        row = next(row for row in self.control("dump?table=t")["documents"] if row["id"] == 4)
        begun = itertools.count(1)

        def others_commit():
            if next(begun) == 3:
                self.emulator.control.mutate([{"op": "patch", "table": "t", "id": row["_id"], "doc": {"n": 9.0}}])
        self.emulator.committer.let_others_commit = others_commit
        self.refused(self.fivetran(*(("Upsert", {"id": key, "n": 2}) for key in range(5))),
                     503, "OptimisticConcurrencyControlFailure")
        self.assertEqual(self.values(), {0: 2, 1: 2, 2: 2, 3: 2, 4: 9})
        self.assertEqual(len(self.control("journal")["requests"][-1]["commits"]), 2)

    def test_a_transaction_sees_its_own_writes(self):
        self.accepted(self.upsert(60, 60, 60, n=1).answer())
        self.assertEqual(self.values()[60], 1)

    def test_an_index_that_becomes_ready_is_no_conflict_of_its_own(self):
        self.control("config", {"index_backfill_ms": 0})
        self.mutate({"op": "index", "table": "t", "fields": ["id"], "ready": False})
        self.assertEqual(self.upsert(1, n=3).answer().status, 200)

    def test_clients_that_read_before_they_write_overwrite_each_other(self):
        """One transaction loses nothing; of two requests that read first both succeed when they come in turn."""
        row = next(row for row in self.documents("t") if row["id"] == 1)
        for _ in range(2):
            self.accepted(self.fivetran(("Update", {"id": 1, "n": row["n"] + 1})))
        self.assertEqual(self.values()[1], row["n"] + 1)


class Latency(ImportTest):

    def test_there_and_back(self):
        """Of two requests under way at once neither waits for the other."""
        for name, is_before in (("latency_before_ms", True), ("latency_after_ms", False)):
            self.create(name)
            self.control("config", {name: 400})
            sent = Sending(self.port, "POST", PREFIX + "apply_fivetran_operations",
                           [{"table": name, "operation": "Upsert", "row": {"id": 1}}])
            wait_until(lambda: [entry for entry in self.control("journal")["requests"] if entry["status"] is None])
            if is_before:
                self.assertEqual(self.documents(name), [])
            else:
                wait_until(lambda name=name: self.documents(name))
                self.assertIsNone(sent.found)
            self.assertEqual(sent.answer().status, 200)
            self.control("config", {name: 0})

    def test_many_at_once(self):
        self.control("config", {"extra_latency_ms": 200})
        begun = time.monotonic()
        sent = [Sending(self.port, "POST", "/api/list_snapshot", {}) for _ in range(40)]
        self.assertEqual({each.answer().status for each in sent}, {200})
        self.assertLess(time.monotonic() - begun, 4)    # one after the other would take 8 s

    def test_unknown_mode(self):
        self.assertEqual(self.request("POST", "/_emulator/config", {"committer": "quick"}, {}).status, 400)


if __name__ == "__main__":
    unittest.main()
