"""The other read functions: documents by id, counts, tables, components, schemas, virtual tables; and faults."""

import json
import unittest

import components
import values
from testing import ADMIN, PAGINATED, QueryTest, clause, encode_filter

BY_ID, LIST = "_system/frontend/getById", "_system/frontend/listById"
SIZE, SIZES = "_system/frontend/tableSize", "_system/frontend/tableSize:sizeOfAllTables"
TABLES, MAPPING = "_system/cli/tables", "_system/frontend/getTableMapping"
DATA, SCHEMAS = "_system/cli/tableData", "_system/frontend/getSchemas"
COMPONENTS = "_system/frontend/components:list"
ONE_PAGE = {"paginationOpts": {"numItems": 100, "cursor": None}}


class Documents(QueryTest):

    def setUp(self):
        super().setUp()
        self.ids = self.insert("t", *({"n": n} for n in range(3)))["ids"]
        self.other = self.insert("u", {"n": 9})["ids"][0]

    def test_one_by_id(self):
        row = self.value(BY_ID, {"id": self.ids[1]})
        self.assertEqual((row["_id"], row["n"], list(row)), (self.ids[1], 1, ["_creationTime", "_id", "n"]))
        self.assertEqual(self.value(BY_ID, {"id": self.other})["n"], 9)    # of any table
        before = self.head()
        self.mutate({"op": "delete", "table": "t", "id": self.ids[1]})
        self.assertIsNone(self.value(BY_ID, {"id": self.ids[1]}))
        self.assertEqual(self.value(BY_ID, {"id": self.ids[1]}, ts=before)["n"], 1)
        for no_id in ("nonsense", "", self.ids[0].upper(), values.encode_id(5, bytes(16)), values.encode_id(20000, bytes(16))):
            self.assertIsNone(self.value(BY_ID, {"id": no_id}))
        self.assertIn("Path: .id", self.error(BY_ID, {"id": 5}))

    def test_many_by_id(self):
        self.mutate({"op": "delete", "table": "t", "id": self.ids[2]})
        asked = [(self.ids[1], "t"), ("nonsense", "t"), (self.other, "t"), (self.other, "u"), (self.ids[2], "t"),
                 (self.ids[1], "t"), (self.ids[1], "none"), (self.ids[1], "_storage"), (self.ids[1], "_x")]
        found = self.value(LIST, {"ids": [{"id": each, "tableName": table} for each, table in asked]})
        self.assertEqual([row and row["n"] for row in found], [1, None, None, 9, None, 1, None, None, None])
        self.assertEqual(self.last_request()["documents_read"], 3)
        self.assertEqual(self.value(LIST, {"ids": []}), [])
        self.assertIn("extra field `x`", self.error(LIST, {"ids": [{"id": "x", "tableName": "t", "x": 1}]}))
        self.assertIn("Path: .ids[0].id", self.error(LIST, {"ids": [{"id": 1, "tableName": "t"}]}))
        self.assertIn("Invalid argument", self.error(LIST, {"ids": [{"id": "x", "tableName": "a b"}]}))

    def test_each_id_is_a_range(self):
        self.control("config", {"max_tx_ranges": 2})
        asked = [{"id": each, "tableName": "t"} for each in self.ids]
        self.assertEqual(len(self.value(LIST, {"ids": asked[:2] * 2})), 4)
        self.assertIn("Too many reads in a single function execution (limit: 2)", self.error(LIST, {"ids": asked}))
        self.control("config", {"max_tx_ranges": 4096, "max_tx_documents_read": 2})
        self.assertIn("Too many documents read", self.error(LIST, {"ids": asked}))


class Tables(QueryTest):

    def setUp(self):
        super().setUp()
        self.insert("users", {}, {})
        self.insert("Accounts", {})
        self.mutate({"op": "create_table", "table": "empty"}, {"op": "create_table", "table": "gone"})
        self.mutate({"op": "drop_table", "table": "gone"})
        self.insert("invoices", {}, component="billing")

    def billing(self):
        return components.id_of("billing")

    def test_counts(self):
        for table, count in (("users", 2), ("empty", 0), ("none", 0), ("", 0), ("invoices", 0)):
            self.assertEqual(self.value(SIZE, {"tableName": table}), count)
        self.assertEqual(self.value(SIZE, {"tableName": "invoices", "componentId": self.billing()}), 1)
        self.assertEqual((self.value(SIZES, {}), self.value(SIZES, {"componentId": self.billing()})), (3, 1))
        self.assertEqual(self.value("_system/cli/tableSize", {"tableName": "users"}), 2)
        self.assertIn("System tables can only be accessed", self.error(SIZE, {"tableName": "_tables"}))
        self.assertIn("Invalid argument `table` for `db.count`", self.error("_system/cli/tableSize", {"tableName": ""}))
        body = {"path": SIZE, "args": {"tableName": "users"}, "format": "json"}
        self.assertEqual(self.post("/api/query", body).body, b'{"status":"success","value":2.0}')

    def test_an_import_under_way_is_in_no_count(self):
        self.control("config", {"import_hold": "in_progress", "import_batch_rows": 1})
        token = self.post("/api/import/start_upload", {}).json()["uploadToken"]
        self.request("POST", f"/api/import/upload_part?uploadToken={token}&partNumber=1", b'{"a":1}\n{"a":2}')
        work = self.post("/api/import/finish_upload", {"import": {
            "tableName": "users", "mode": "replace", "format": "jsonLines"}, "uploadToken": token, "partTokens": [""]})
        self.assertEqual(work.status, 200)
        self.assertEqual(self.value(SIZE, {"tableName": "users"}), 2)
        self.control("config", {"import_hold": None})

    def test_lists_of_tables(self):
        self.assertEqual(self.value(TABLES, ONE_PAGE), {"continueCursor": "end", "isDone": True, "page": [
            {"name": "users"}, {"name": "Accounts"}, {"name": "empty"}]})
        self.assertEqual(self.value(MAPPING, {}), {"10001": "users", "10002": "Accounts", "10003": "empty",
                                                   "21": "_file_storage", "22": "_scheduled_jobs"})
        self.assertEqual(self.value(MAPPING, {"componentId": self.billing()})["10001"], "invoices")
        self.assertIn("required field `paginationOpts`", self.error(TABLES, {}))

    def test_components(self):
        self.insert("x", {}, component="billing/ledger")
        self.control("config", {"components_unmounted": ["billing"]})
        text = self.post("/api/query", {"path": COMPONENTS, "args": {}, "format": "json"}).body.decode()
        root, billing, ledger = json.loads(text)["value"]
        self.assertEqual(list(root), ["args", "httpPrefix", "id", "name", "path", "state"])
        self.assertEqual((root["path"], root["name"], root["state"]), ("", None, "active"))
        self.assertEqual((billing["name"], billing["state"], billing["args"], billing["httpPrefix"]),
                         ("billing", "unmounted", {}, None))
        self.assertEqual((ledger["path"], ledger["name"]), ("billing/ledger", "ledger"))
        self.assertIsNotNone(values.decode_id(ledger["id"]))
        self.assertEqual(len(self.page("x", componentId=ledger["id"])["page"]), 1)
        self.assertEqual(len(self.page("invoices", componentId=billing["id"])["page"]), 1)

    def test_components_that_are_none(self):
        root = next(each["id"] for each in self.value(COMPONENTS, {}) if each["path"] == "")
        self.assertEqual(self.page("users", componentId=root)["page"], [])    # the root is null
        self.assertEqual(self.value(SIZE, {"tableName": "users", "componentId": None}), 2)
        self.assertEqual(self.value(SIZE, {"tableName": "users", "componentId": root}), 0)
        body = {"path": SIZE, "args": {"tableName": "users", "componentId": values.encode_id(29, bytes(16))}}
        self.refused(self.post("/api/query", body), 500, "InternalServerError")
        self.refused(self.post("/api/query_batch", {"queries": [body]}), 500, "InternalServerError")
        self.assertIn("Invalid reference", self.error(SIZE, {"tableName": "users", "componentId": "x"}))

    def test_errors_nest_in_a_component(self):
        billing = self.billing()
        self.assertIn("Uncaught Error: Uncaught Error: System tables",
                      self.error(SIZE, {"tableName": "_x", "componentId": billing}))
        cursor = self.page("invoices", items=1, componentId=billing)["continueCursor"]
        answer = self.call(PAGINATED, self.page_args("invoices", encode_filter(order="asc"), cursor, componentId=billing))
        self.assertIn("InvalidCursor", answer["errorMessage"])
        self.assertTrue(answer["errorData"]["isConvexSystemError"])

    def test_schemas(self):
        self.assertEqual(self.value(SCHEMAS, {}), {})
        schema = self.declare(users=[("by_age", "age")])
        self.control("config", {"schemas_in_progress": {"billing": schema}})
        answer = self.value(SCHEMAS, {})
        self.assertEqual(list(answer), ["active"])
        self.assertIsInstance(answer["active"], str)
        parsed = json.loads(answer["active"])
        self.assertEqual(parsed["tables"][0]["indexes"], [{"indexDescriptor": "by_age", "fields": ["age", "_creationTime"]}])
        self.assertEqual(parsed["schemaValidation"], False)
        self.assertEqual(list(self.value(SCHEMAS, {"componentId": self.billing()})), ["inProgress"])
        before = self.head()
        self.control("config", {"schema": None})
        self.assertEqual(self.value(SCHEMAS, {}), {})
        self.assertEqual(self.value(SCHEMAS, {}, ts=before), answer)


class TableData(QueryTest):

    def data(self, table, order="asc", **options):
        return self.value(DATA, {"table": table, "order": order,
                                 "paginationOpts": {"numItems": 2, "cursor": None, **options}})

    def test_pages_of_a_table(self):
        self.insert("t", *({"n": n} for n in range(3)))
        first = self.data("t")
        self.assertEqual([row["n"] for row in first["page"]], [0, 1])
        self.assertEqual(list(first), ["continueCursor", "isDone", "page", "pageStatus", "splitCursor"])
        self.assertEqual([row["n"] for row in self.data("t", cursor=first["continueCursor"])["page"]], [2])
        self.assertEqual([row["n"] for row in self.data("t", "desc")["page"]], [2, 1])
        asked = {"table": "t", "order": "up", **ONE_PAGE}
        self.assertIn("Value does not match validator", self.error(DATA, asked))
        self.assertIn("extra field `componentId`", self.error(DATA, {**asked, "order": "asc", "componentId": None}))
        self.assertEqual(self.data("none")["page"], [])

    def test_virtual_tables(self):
        stored = {"contentType": "text/plain", "sha256": "AAAA", "size": 5}
        job = {"args": [], "name": "m.js:f", "scheduledTime": 1.5, "state": {"kind": "pending"}}
        file_id, = self.insert("_storage", stored)["ids"]
        job_id, = self.insert("_scheduled_functions", job)["ids"]
        self.insert("_storage", stored, component="billing")
        page = self.data("_storage")
        self.assertEqual(page["page"], [{**stored, "_id": file_id, "_creationTime": page["page"][0]["_creationTime"]}])
        self.assertEqual([row["name"] for row in self.data("_scheduled_functions", "desc")["page"]], ["m.js:f"])
        self.assertEqual(self.data("_tables"), {**self.data("_tables"), "page": [], "isDone": True})
        self.assertEqual(self.value(BY_ID, {"id": job_id})["state"], {"kind": "pending"})
        asked = [(file_id, "_storage"), (file_id, "_file_storage"), (job_id, "_scheduled_jobs"), (job_id, "_storage")]
        found = self.value(LIST, {"ids": [{"id": each, "tableName": table} for each, table in asked]})
        self.assertEqual([row and row["_id"] for row in found], [file_id, file_id, job_id, None])
        self.mutate({"op": "patch", "table": "_storage", "id": file_id, "doc": {"size": 6}})
        self.assertEqual(self.data("_storage")["page"][0]["size"], 6)
        self.mutate({"op": "delete", "table": "_storage", "id": file_id})
        self.assertEqual(self.data("_storage")["page"], [])
        self.assertEqual((self.rows(), self.value(TABLES, ONE_PAGE)["page"]), ([], []))    # no export shows them
        self.assertEqual(self.all_deltas(0), [])
        self.assertIn("db.system.query", self.error(PAGINATED, self.page_args("_storage")))


class Faults(QueryTest):
    """What a busy, an old, or a strange server answers."""

    def setUp(self):
        super().setUp()
        self.insert("t", {"n": 1})
        self.insert("u", {"n": 2})

    def test_a_status_for_one_function_or_table(self):
        self.control("faults", [
            {"action": "status", "status": 429, "code": "TooManyConcurrentRequests", "where": {"function": SIZE}},
            {"action": "status", "status": 503, "code": "OptimisticConcurrencyControlFailure", "where": {"table": "u"}}])
        self.assertEqual(len(self.page()["page"]), 1)
        body = {"path": SIZE, "args": {"tableName": "t"}}
        self.refused(self.post("/api/query_batch", {"queries": [{**body, "path": PAGINATED}, body]}), 429,
                     "TooManyConcurrentRequests")
        self.assertEqual(self.post("/api/query", body).status, 200)
        asked = {"path": LIST, "args": {"ids": [{"id": "x", "tableName": "u"}]}}
        self.refused(self.post("/api/query", asked), 503, "OptimisticConcurrencyControlFailure")
        self.assertEqual(self.last_request()["fault"], "status")

    def test_a_function_fails_with_any_text(self):
        self.control("faults", [
            {"action": "function_error", "message": "Your request timed out performing too many system operations."},
            {"action": "function_error", "message": "x", "data": {"code": 1}, "status": 560}])
        self.assertEqual(self.error(SIZE, {"tableName": "t"}), "Your request timed out performing too many system operations.")
        answer = self.post("/api/query", {"path": SIZE, "args": {"tableName": "t"}})
        self.assertEqual((answer.status, answer.json()["errorData"]), (560, {"code": 1}))
        self.assertEqual(self.value(SIZE, {"tableName": "t"}), 1)

    def test_an_answer_of_another_shape(self):
        self.control("faults", [{"action": "body", "body": '{"status":"success"}'},
                                {"action": "edit", "skip": 1, "find": '"page":[', "replace": '"page":[7,'}])
        self.assertEqual(self.post("/api/query", {"path": PAGINATED, "args": {}}).json(), {"status": "success"})
        self.assertEqual(self.page()["page"][0], 7)

    def test_a_write_between_two_pages(self):
        self.control("faults", {"action": "mutate", "skip": 1, "ops": [{"op": "insert", "table": "t", "doc": {"n": 5}}]})
        asked = encode_filter([clause("n", "gt", 0)], order="asc")
        first = self.page(filters=asked, items=1)
        self.assertEqual([row["n"] for row in self.page(filters=asked, cursor=first["continueCursor"])["page"]], [5])

    def test_a_route_that_an_old_server_does_not_have(self):
        self.control("config", {"routes_missing": ["/api/query_at_ts"]})
        self.assertEqual(self.post("/api/query_at_ts", {}, ADMIN).status, 404)

    def test_the_journal_counts_a_batch_as_a_whole(self):
        query = {"path": PAGINATED, "args": self.page_args()}
        self.post("/api/query_batch", {"queries": [query, query]})
        entry = self.last_request()
        self.assertEqual((entry["documents_read"], entry["snapshot"]), (2, self.head()))
        row, = self.page()["page"]
        self.assertEqual(entry["bytes_read"], 2 * values.value_size(row))


if __name__ == "__main__":
    unittest.main()
