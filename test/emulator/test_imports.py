"""The import routes: airbyte, fivetran, clears, hidden indexes, declared schemas, snapshot imports."""

import contextlib
import io
import json
import unittest

import values
from test_emulator import backup_zip
from testing import ADMIN, JSON, READ_ONLY, EmulatorTest, wait_until

PREFIX = "/api/streaming_import/"
ONE = {"$integer": "AQAAAAAAAAA="}
TWO = {"$integer": "AgAAAAAAAAA="}


class ImportTest(EmulatorTest):

    def setUp(self):
        super().setUp()
        self.control("config", {"index_backfill_ms": 0})

    def put(self, route, body):
        return self.request("PUT", PREFIX + route, body)

    def accepted(self, answer):
        self.assertEqual((answer.status, answer.body), (200, b""))

    def documents(self, table):
        """Without system fields, in the order of `_id`."""
        found = self.control(f"dump?table={table}")["documents"]
        return [{name: row[name] for name in row if name not in ("_id", "_creationTime")} for row in found]

    def airbyte(self, *messages, key=None, table="t"):
        return self.post(PREFIX + "import_airbyte_records", {
            "tables": {table: {"primaryKey": key, "jsonSchema": {}}},
            "messages": [{"tableName": table, "data": data} for data in messages]})

    def fivetran(self, *rows, table="t"):
        return self.post(PREFIX + "apply_fivetran_operations", [
            {"table": table, "operation": operation, "row": row} for operation, row in rows])

    def create(self, table="t", key=("id",), synced=("fivetran.synced",)):
        indexes = [{"indexDescriptor": "_fivetran_by_primary_key", "fields": list(key)}]
        if synced:
            indexes.append({"indexDescriptor": "_fivetran_by_synced", "fields": list(synced)})
        return self.post(PREFIX + "fivetran_create_table",
                         {"tableDefinition": {"tableName": table, "documentType": None, "indexes": indexes}})


class Airbyte(ImportTest):

    def test_append(self):
        self.accepted(self.airbyte({"id": 1, "big": 2**53 + 1, "x": [True, None, "a", {"b": 2}]}, {"id": 1},
                                   {"id": 2, "_ab_cdc_deleted_at": "now", "_ab_cdc_updated_at": "x"}))
        found = sorted(self.documents("t"), key=str)
        self.assertEqual(sorted(map(str, found)), sorted(map(str, [
            {"big": 9007199254740992.0, "id": 1.0, "x": [True, None, "a", {"b": 2.0}]}, {"id": 1.0}, {"id": 2.0}])))
        self.assertTrue(all(isinstance(row["id"], float) for row in found))

    def test_names_are_made_valid(self):
        self.accepted(self.airbyte({"_id": 1, "_creationTime": 2, "$integer": "AQ==", "Hello World": 3, "": 4,
                                    "Größe!": 5, "nested": {"_x": 6, "$bytes": "AA=="}}, table="123-Abc"))
        self.assertEqual(self.documents("source_123_abc"), [{
            "": 4, "Hello World": 3, "nested": {"source_bytes": "AA==", "source_x": 6}, "source_creationtime": 2,
            "source_grosse": 5, "source_id": 1, "source_integer": "AQ=="}])
        self.accepted(self.airbyte({"_id": 1, "source_id": 2}))
        self.assertEqual(self.documents("t"), [{"source_id": 2, "source_source_id": 1}])

    def test_other_scripts_are_transliterated(self):
        for name, made in (("日本", "ri_ben"), ("东京 users", "dong_jing_users"), ("город", "gorod"),
                           ("Αθήνα", "athena"), ("カタカナ", "katakana"), ("한국", "hangug"), ("shop™", "shoptm"),
                           ("emoji😀x", "emojix"), ("日_本_表", "ri_ben_biao"), ("ıŁøÆßþð", "iloaessthd"),
                           ("__a—b__", "a_b")):
            self.accepted(self.airbyte({"id": 1}, table=name))
            self.assertEqual(len(self.documents("source_" + made)), 1, name)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.refused(self.airbyte({"id": 1}, table="龘"), 500, "InternalServerError")
        self.assertIn("no transliteration here", said.getvalue())

    def test_mistakes_that_are_500(self):
        self.refused(self.airbyte([1]), 500, "InternalServerError")
        self.refused(self.airbyte({"a": 1}, table="x" * 65), 500, "InternalServerError")
        self.refused(self.airbyte({"id": 1}, key=[["not an identifier"]]), 500, "InternalServerError")
        self.refused(self.airbyte({"_id": 1, "source_id": 2, "source_source_id": 3, "source_source_source_id": 4}),
                     500, "InternalServerError")

    def test_bodies(self):
        for body in ({}, {"tables": {}, "messages": {}}, {"tables": {"t": {}}, "messages": []},
                     {"tables": {"t": {"jsonSchema": {}, "primaryKey": ["id"]}}, "messages": []},
                     {"tables": {}, "messages": [{"tableName": "t"}]}, {"tables": {}, "messages": [{"data": {}}]}):
            self.refused(self.post(PREFIX + "import_airbyte_records", body), 400, "BadJsonBody")
        self.refused(self.airbyte({"x": "y" * (20 << 20)}), 400, "BadJsonBody")
        self.refused(self.airbyte({"x": "y" * (19 << 20)}), 400, "ValueTooLargeError")

    def test_streams_must_be_named(self):
        answer = self.post(PREFIX + "import_airbyte_records", {
            "tables": {}, "messages": [{"tableName": "t", "data": {}}]})
        self.refused(answer, 400, "MissingStream")
        self.refused(self.airbyte({"id": 1}, key=[]), 400, "EmptyPrimaryKey")

    def test_life_of_an_index(self):
        """Missing, backfilling, ready; equal fields are a no-op, other fields start again."""
        self.control("config", {"index_backfill_ms": None, "index_backfill_polls": 2})
        self.refused(self.airbyte({"id": 1}, key=[["id"]]), 400, "IndexNotFoundError")
        ready = PREFIX + "primary_key_indexes_ready"
        self.refused(self.request("GET", ready, {"tables": ["t"]}), 400, "MissingIndex")
        self.accepted(self.put("add_primary_key_indexes", {"indexes": {"t": [["id"]]}}))
        self.refused(self.airbyte({"id": 1}, key=[["id"]]), 400, "IndexBackfillingError")
        self.refused(self.put("clear_tables", {"tableNames": ["t"]}), 400, "InvalidImport")
        polls = [self.request("GET", ready, {"tables": ["t"]}).body for _ in range(3)]
        self.assertEqual(polls, [b'{"indexesReady":false}'] * 2 + [b'{"indexesReady":true}'])
        self.accepted(self.airbyte({"id": 1}, key=[["id"]]))
        self.accepted(self.put("add_primary_key_indexes", {"indexes": {"t": [["id"]]}}))
        self.accepted(self.airbyte({"id": 1, "n": 2}, key=[["id"]]))
        self.accepted(self.put("add_primary_key_indexes", {"indexes": {"t": [["id"], ["n"]]}}))
        self.refused(self.airbyte({"id": 1, "n": 2}, key=[["id"], ["n"]]), 400, "IndexBackfillingError")

    def test_one_index_at_a_time(self):
        """While one is backfilled others are turned away; the same once more is no write, and so no conflict."""
        self.control("config", {"index_backfill_ms": None, "index_backfill_polls": 1})
        for table in ("t", "t", "u"):
            answer = self.put("add_primary_key_indexes", {"indexes": {table: [["id"]]}})
            if table == "t":
                self.accepted(answer)
        self.refused(answer, 503, "OptimisticConcurrencyControlFailure")
        self.refused(self.create("v"), 503, "OptimisticConcurrencyControlFailure")
        for _ in range(2):
            self.request("GET", PREFIX + "primary_key_indexes_ready", {"tables": ["t"]})
        self.accepted(self.put("add_primary_key_indexes", {"indexes": {"u": [["id"]], "w": [["id"]]}}))

    def test_ready_is_a_get_with_a_body(self):
        self.refused(self.request("GET", PREFIX + "primary_key_indexes_ready", b'{"tables":[]}', ADMIN), 400, "BadJsonBody")
        self.assertEqual(self.request("GET", PREFIX + "primary_key_indexes_ready", {"tables": []}).body,
                         b'{"indexesReady":true}')
        self.assertEqual(self.post(PREFIX + "primary_key_indexes_ready", {"tables": []}).status, 405)

    def test_dedup(self):
        """Full replace, last duplicate wins, a delete of an unknown key inserts, a null key is a key."""
        self.put("add_primary_key_indexes", {"indexes": {"t": [["id"]]}})
        self.accepted(self.airbyte({"id": 1, "a": 1}, {"id": 1, "b": 2}, {"id": None}, {"id": "1"},
                                   {"id": 7, "c": 1, "_ab_cdc_deleted_at": "x"}, key=[["id"]]))
        before = {str(row["id"]): row for row in self.control("dump?table=t")["documents"]}
        self.assertEqual(len(before), 4)
        self.assertEqual(sorted(before["1.0"]), ["_creationTime", "_id", "b", "id"])
        self.assertEqual(before["7.0"]["c"], 1)
        start = self.head()
        self.accepted(self.airbyte({"id": 1, "b": 2}, {"id": 1, "z": 9}, {"id": 7, "_ab_cdc_deleted_at": "x"},
                                   {"id": None, "_ab_cdc_deleted_at": None, "n": 1}, key=[["id"]]))
        rows = {row["_id"]: row for row in self.deltas(start)["values"]}
        self.assertEqual(len({row["_ts"] for row in rows.values()}), 1)
        self.assertTrue(rows[before["7.0"]["_id"]]["_deleted"])
        changed = rows[before["1.0"]["_id"]]
        self.assertEqual((changed["z"], changed["_creationTime"]), (9, before["1.0"]["_creationTime"]))
        self.assertEqual(len(self.documents("t")), 3)
        start = self.head()
        self.accepted(self.airbyte({"id": 1, "z": 9}, key=[["id"]]))
        self.assertEqual(self.deltas(start)["values"], [])

    def test_keys_must_fit_the_index(self):
        self.put("add_primary_key_indexes", {"indexes": {"t": [["a"], ["b", "c"]]}})
        good = [["b", "c"], ["a"]]
        self.accepted(self.airbyte({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, key=good))
        self.refused(self.airbyte({"a": 1, "b": {}}, key=good), 400, "MissingPrimaryKeyValue")
        self.refused(self.airbyte({"x": 1}, key=[["x"]]), 400, "FieldNotInIndex")
        self.refused(self.airbyte({"b": {"c": 1}}, key=[["b", "c"]]), 400, "InvalidIndexRange")
        self.refused(self.airbyte({"a": 1, "b": 1}, key=[["a"]]), 500, "InternalServerError")    # two rows
        self.refused(self.airbyte({"a": 1}, key=[["a"], ["a"]]), 400, "FieldsNotUniqueWithinIndex")
        self.refused(self.airbyte({"a": 1}, key=[["_id"]]), 400, "IndexFieldsContainId")
        self.refused(self.airbyte({"a": 1}, key=[[f"f{i}"] for i in range(17)]), 400, "IndexTooManyFields")

    def test_index_fields(self):
        for fields, code in (([["_id"]], "InvalidPrimaryKey"), ([["a"], ["a"]], "InvalidPrimaryKey"),
                             ([["a b"]], "InvalidPrimaryKey"), ([[]], "InvalidPrimaryKey"),
                             ([[f"f{i}"] for i in range(17)], "InvalidPrimaryKey"),
                             ([[f"f{i}"] for i in range(16)], "IndexTooManyFields"),
                             ([["_creationTime"]], "IndexFieldsContainCreationTime"),
                             ([["a", "_b"]], "IndexFieldNameReserved"), ([["a", "_id"]], "IndexFieldNameReserved")):
            self.refused(self.put("add_primary_key_indexes", {"indexes": {"t": fields}}), 400, code)
        self.accepted(self.put("add_primary_key_indexes", {"indexes": {"t": [[f"f{i}"] for i in range(15)]}}))
        self.assertEqual(self.documents("t"), [])

    def test_a_late_failure_leaves_what_was_committed(self):
        """One transaction until a limit: 16,000 writes here; then a failing row loses only the open one."""
        start = self.head()
        self.refused(self.airbyte(*({"n": i} for i in range(16_010)), {"x": "y" * (1 << 20)}), 400, "ValueTooLargeError")
        self.assertEqual(len(self.documents("t")), 16_000)
        self.control("reset", {})
        self.accepted(self.airbyte(*({"n": i} for i in range(16_010))))
        self.assertEqual(len({row["_ts"] for row in self.all_deltas(start)}), 2)

    def test_a_keyed_request_reaches_the_ranges_first(self):
        self.put("add_primary_key_indexes", {"indexes": {"t": [["id"]]}})
        self.accepted(self.airbyte(*({"id": i} for i in range(1000)), key=[["id"]]))
        start = self.head()
        self.accepted(self.airbyte(*({"id": i, "n": 1} for i in range(1000)), key=[["id"]]))
        self.assertEqual(len({row["_ts"] for row in self.all_deltas(start)}), 1)
        start = self.head()
        self.accepted(self.airbyte(*({"id": i, "n": 2} for i in range(5000)), key=[["id"]]))
        self.assertGreater(len({row["_ts"] for row in self.all_deltas(start)}), 1)
        self.assertEqual(len(self.documents("t")), 5000)

    def test_a_failure_before_any_limit_leaves_nothing(self):
        self.refused(self.airbyte({"n": 1}, {"x": "y" * (1 << 20)}), 400, "ValueTooLargeError")
        self.assertNotIn("t", [table["table"] for table in self.control("state")["tables"]])

    def test_limits_of_values(self):
        deep = 1
        for _ in range(17):
            deep = [deep]
        deeper = deep
        for _ in range(50):
            deeper = [deeper]
        for row, code in (({"x": deep}, "InvalidDocumentError"), ({"x": deeper}, "TooNestedError"),
                          ({"x": [0] * 8193}, "ArrayTooLong"),
                          ({"x": {f"f{i}": 0 for i in range(1025)}}, "TooManyFieldsError")):
            self.refused(self.airbyte(row), 400, code)
        self.assertEqual(self.airbyte({"x": deep[0][0]}).status, 200)

    def test_what_no_value_may_be_is_seen_before_anything_is_done(self):
        """A document may be less than a value: that comes when its turn has come."""
        self.control("config", {"max_tx_writes": 1})
        deep = 1
        for _ in range(17):
            deep = [deep]
        self.refused(self.airbyte({"x": 1}, {"x": 2}, {"x": deep}), 400, "InvalidDocumentError")
        self.assertEqual(self.documents("t"), [{"x": 1}])
        self.refused(self.airbyte({"x": 3}, {"x": 4}, {"x": [0] * 8193}), 400, "ArrayTooLong")
        self.assertEqual(self.documents("t"), [{"x": 1}])


class Fivetran(ImportTest):

    def test_upsert_update_delete(self):
        self.accepted(self.create())
        self.accepted(self.fivetran(("Upsert", {"id": ONE, "name": "Ada", "data": {"$bytes": "AP8="},
                                                "fivetran": {"synced": 5.0, "columns": {"a": 1}}})))
        first = self.control("dump?table=t")["documents"][0]
        self.assertEqual((first["id"], first["data"]), (ONE, {"$bytes": "AP8="}))
        self.accepted(self.fivetran(("Update", {"id": ONE, "age": 1.5, "fivetran": {"synced": 6.0}})))
        self.assertEqual(self.documents("t"), [{"id": ONE, "name": "Ada", "age": 1.5, "data": {"$bytes": "AP8="},
                                                "fivetran": {"synced": 6.0, "columns": {"a": 1}}}])
        self.accepted(self.fivetran(("Upsert", {"id": ONE, "x": True})))
        self.assertEqual(self.documents("t"), [{"id": ONE, "x": True}])
        self.assertEqual(self.control("dump?table=t")["documents"][0]["_id"], first["_id"])
        self.accepted(self.fivetran(("HardDelete", {"id": ONE}), ("HardDelete", {"id": ONE}),
                                    ("Upsert", {"id": 1.0}), ("Upsert", {"id": TWO})))
        self.assertEqual(sorted(str(row["id"]) for row in self.documents("t")), ["1.0", str(TWO)])

    def test_a_nul_goes_on_after_the_end_of_a_string(self):
        """A range of an index is a prefix of bytes, and Convex's encoding of strings is not free of prefixes."""
        self.create()
        self.accepted(self.fivetran(("Upsert", {"id": "a\0b", "n": 1})))
        before = self.control("dump?table=t")["documents"]
        self.accepted(self.fivetran(("Update", {"id": "a", "n": 2})))
        after = self.control("dump?table=t")["documents"]
        self.assertEqual(after, [{**before[0], "id": "a", "n": 2}])
        self.accepted(self.fivetran(("Upsert", {"id": "ab", "n": 3}), ("Upsert", {"id": "a\0b", "n": 4})))
        self.refused(self.fivetran(("Upsert", {"id": "a", "n": 5})), 500, "InternalServerError")
        self.accepted(self.fivetran(("HardDelete", {"id": "a\0b"}), ("Upsert", {"id": "a", "n": 6})))
        self.assertEqual({row["id"]: row["n"] for row in self.documents("t")}, {"a": 6, "ab": 3})
        self.refused(self.fivetran(("Upsert", {"id": "a\0c"}), ("Upsert", {"id": "a"})), 500, "InternalServerError")

    def test_an_index_from_outside(self):
        self.control("config", {"index_backfill_ms": None, "index_backfill_polls": 1})
        self.mutate({"op": "insert", "table": "t", "doc": {"id": 1, "a": {"b": "x"}}},
                    {"op": "index", "table": "t", "fields": ["id", "a.b"]},
                    {"op": "insert", "table": "t", "doc": {"id": 2, "a": {"b": "x"}}},
                    {"op": "index", "table": "t", "route": "airbyte", "fields": ["id"], "ready": False})
        self.accepted(self.fivetran(("HardDelete", {"id": 1, "a": {"b": "x"}}), ("HardDelete", {"id": 2, "a": {"b": "y"}})))
        self.assertEqual([row["id"] for row in self.documents("t")], [2])
        self.refused(self.airbyte({"id": 1}, key=[["id"]]), 400, "IndexBackfillingError")

    def test_a_missing_update_is_404(self):
        self.create()
        self.refused(self.fivetran(("Upsert", {"id": ONE}), ("Update", {"id": TWO, "a": 1})),
                     404, "FivetranMissingUpdatedRow")
        self.assertEqual(self.documents("t"), [])

    def test_refusals(self):
        self.refused(self.fivetran(("Upsert", {"id": 1})), 400, "MissingFivetranPrimaryKeyIndex")
        self.create()
        self.refused(self.fivetran(("Upsert", {"x": 1})), 400, "MissingValueForFivetranPrimaryKeyIndex")
        self.refused(self.fivetran(("Upsert", {"id": 1, "_x": 1})), 400, "InvalidDocumentError")
        self.refused(self.fivetran(("Upsert", {"id": 1, "_id": "x"})), 400, "InvalidIdError")
        self.refused(self.fivetran(("Upsert", {"id": 1, "_creationTime": 1.0})), 400, "InvalidCreationTimeError")
        self.refused(self.fivetran(("Upsert", {"id": 1, "x": [0] * 8193})), 400, "BadJsonBody")
        self.accepted(self.fivetran(("Upsert", {"id": 1})))
        row = self.control("dump?table=t")["documents"][0]
        for operation in ("Upsert", "Update"):
            self.refused(self.fivetran((operation, {"id": 1, "_id": row["_id"][:-1]})), 400, "InvalidIdError")
            self.refused(self.fivetran((operation, {"id": 1, "_x": 1})), 400, "InvalidDocumentError")
            self.accepted(self.fivetran((operation, {**row, "seen": True})))
        self.accepted(self.fivetran(("HardDelete", {"id": 77, "_id": "x", "_y": 1})))
        self.refused(self.fivetran(("Upsert", {"id": 1}), table="a b"), 500, "InternalServerError")
        for row in (("upsert", {"id": 1}), ("Upsert", []), ("Upsert", {"id": {"$integer": "AQ=="}}),
                    ("Upsert", {"$x": 1, "id": 1})):
            self.refused(self.fivetran(row), 400, "BadJsonBody")
        self.refused(self.fivetran(("Upsert", {"id": 1, "x": "y" * (2 << 20)})), 400, "BadJsonBody")

    def test_two_hidden_indexes_stand_side_by_side(self):
        self.create()
        self.accepted(self.put("add_primary_key_indexes", {"indexes": {"t": [["name"]]}}))
        self.accepted(self.fivetran(("Upsert", {"id": ONE, "name": "Ada"})))
        self.accepted(self.airbyte({"name": "Ada", "n": 1}, key=[["name"]]))
        self.assertEqual(self.documents("t"), [{"name": "Ada", "n": 1}])

    def test_soft_deleted_rows_do_not_match(self):
        self.create(key=("fivetran.deleted", "id"))
        self.accepted(self.fivetran(("Upsert", {"id": ONE, "fivetran": {"deleted": True, "synced": 1.0}}),
                                    ("Upsert", {"id": ONE, "fivetran": {"deleted": False, "synced": 2.0}}),
                                    ("Update", {"id": ONE, "n": 1})))
        self.assertEqual(sorted(row.get("n", 0) for row in self.documents("t")), [0, 1])

    def test_definitions(self):
        route = PREFIX + "fivetran_create_table"

        def define(table, *indexes):
            return self.post(route, {"tableDefinition": {"tableName": table, "documentType": None, "indexes": [
                {"indexDescriptor": name, "fields": fields} for name, fields in indexes]}})
        key = ("_fivetran_by_primary_key", ["id"])
        self.refused(define("t"), 400, "MissingIndex")
        self.refused(define("a b", key), 400, "InvalidTableName")
        self.refused(define("_t", key), 400, "TableNameReserved")
        self.refused(define("t", key, ("by_name", ["name"])), 500, "InternalServerError")
        self.refused(define("t", ("_fivetran_by_primary_key", ["_creationTime"])), 400, "IndexFieldsContainCreationTime")
        self.refused(define("t", ("_fivetran_by_primary_key", [])), 400, "EmptyIndex")
        self.refused(self.post(route, {}), 400, "BadJsonBody")
        self.accepted(define("t", key))
        self.accepted(define("t", key))

    def test_create_waits_for_the_index(self):
        self.control("config", {"index_backfill_ms": None, "index_backfill_polls": 3})
        self.accepted(self.create())
        self.accepted(self.fivetran(("Upsert", {"id": ONE})))

    def test_truncate(self):
        route = PREFIX + "fivetran_truncate_table"
        self.assertEqual(self.post(route, {"tableName": "absent", "deleteType": "SoftDelete"}).status, 200)
        self.create(synced=None)
        self.refused(self.post(route, {"tableName": "t", "deleteType": "SoftDelete"}), 400, "MissingFivetranSyncedIndex")
        self.create("u", synced=("fivetran.id",))
        self.refused(self.post(route, {"tableName": "u", "deleteType": "SoftDelete"}), 400, "WrongFieldsInFivetranSyncedIndex")
        self.create("v", synced=("fivetran.deleted", "fivetran.synced"))
        rows = [("Upsert", {"id": i, "fivetran": {"synced": 1000.0 * i, "deleted": i == 0}}) for i in range(4)]
        self.accepted(self.fivetran(*rows, table="v"))
        self.accepted(self.post(route, {"tableName": "v", "deleteType": "SoftDelete",
                                        "deleteBefore": "1970-01-01T00:00:02Z"}))
        state = {row["id"]: row["fivetran"]["deleted"] for row in self.documents("v")}
        self.assertEqual(state, {0: True, 1: True, 2: False, 3: False})
        self.accepted(self.post(route, {"tableName": "v", "deleteType": "HardDelete",
                                        "deleteBefore": "1970-01-01T00:00:03Z"}))
        self.assertEqual(sorted(row["id"] for row in self.documents("v")), [0, 1, 3])
        self.accepted(self.post(route, {"tableName": "v", "deleteType": "HardDelete"}))
        self.assertEqual(self.documents("v"), [])
        for body in ({"tableName": "t"}, {"tableName": "t", "deleteType": "x"},
                     {"tableName": "t", "deleteType": "SoftDelete", "deleteBefore": "yesterday"}):
            self.refused(self.post(route, body), 400, "BadJsonBody")


class Transactions(ImportTest):
    """What one transaction may hold. A request that holds more is several, in order."""

    def setUp(self):
        super().setUp()
        self.create()
        self.put("add_primary_key_indexes", {"indexes": {"t": [["id"]]}})

    def commits(self):
        return self.control("journal")["requests"][-1]["commits"]

    def sizes(self, **limits):
        """Sends 40 rows under the limits; how many each transaction changed."""
        self.control("config", limits)
        before = self.head()
        self.accepted(self.send())
        commits = self.commits()
        rows = self.all_deltas(before)
        self.assertEqual(sorted({row["_ts"] for row in rows}), commits)
        return [sum(row["_ts"] == ts for row in rows) for ts in commits]

    def send_fivetran(self, operation, keys=range(40), **fields):
        return self.fivetran(*((operation, {"id": key, **fields}) for key in keys))

    def send_airbyte(self, keys=range(40), **fields):
        return self.airbyte(*({"id": key, **fields} for key in keys), key=[["id"]])

    def test_a_new_row_costs_one_range(self):
        for send in (lambda: self.send_fivetran("Upsert"), lambda: self.send_airbyte(range(100, 140))):
            self.send = send
            self.assertEqual(self.sizes(max_tx_ranges=15), [15, 15, 10])

    def test_a_row_that_was_there_costs_two_ranges_and_two_reads(self):
        for send in (lambda: self.send_fivetran("Upsert", a=1), lambda: self.send_fivetran("Update", a=1),
                     lambda: self.send_airbyte(a=1), lambda: self.send_fivetran("HardDelete")):
            self.send = send
            for limit in ("max_tx_ranges", "max_tx_documents_read"):
                self.control("config", {"max_tx_ranges": 4096, "max_tx_documents_read": 32_000})
                self.send_fivetran("Upsert")
                self.assertEqual(self.sizes(**{limit: 30}), [15, 15, 10])

    def test_the_bytes_read_are_twice_those_of_the_old_documents(self):
        self.send_fivetran("Upsert", text="x" * 10_000)
        self.send = lambda: self.send_fivetran("HardDelete")
        self.assertEqual(self.sizes(max_tx_bytes_read=200_000), [9, 9, 9, 9, 4])

    def test_the_bytes_written_are_those_of_whole_documents(self):
        self.send_fivetran("Upsert", text="x" * 10_000)
        self.send = lambda: self.send_fivetran("Update", n=1)
        self.assertEqual(self.sizes(max_tx_bytes_written=100_500), [9, 9, 9, 9, 4])

    def test_writes(self):
        self.send = lambda: self.airbyte(*({"n": i} for i in range(40)))
        self.assertEqual(self.sizes(max_tx_writes=25), [25, 15])

    def test_neighbouring_keys_are_one_range(self):
        """1, 2, 3 as int64 leave no gap in an index; as float64 they do."""
        keys = [{"$integer": values.encode_value(number, values.ENCODED)[13:-2]} for number in range(1, 41)]
        self.send = lambda: self.send_fivetran("Upsert", keys)
        self.assertEqual(self.sizes(max_tx_ranges=3), [40])
        self.send = lambda: self.send_fivetran("Upsert", keys, a=1)
        self.assertEqual(self.sizes(max_tx_ranges=16), [15, 15, 10])

    def test_a_key_is_read_once(self):
        self.send = lambda: self.fivetran(*(("Upsert", {"id": 1, "n": number}) for number in range(40)))
        self.assertEqual(self.sizes(max_tx_ranges=1), [1])

    def test_writes_that_cancel_out_are_a_commit(self):
        """One row of the log for each document that was written, whatever the net effect."""
        self.send_fivetran("Upsert", [1, 2], n=1)
        before = self.head()
        self.accepted(self.fivetran(("Upsert", {"id": 1, "n": 2}), ("Upsert", {"id": 1, "n": 1}),
                                    ("Upsert", {"id": 2, "n": 1}), ("Upsert", {"id": 3}), ("HardDelete", {"id": 3})))
        commits = self.commits()
        rows = self.all_deltas(before)
        self.assertEqual(sorted((row["_deleted"], row.get("id"), row.get("n")) for row in rows),
                         [(False, 1, 1), (True, None, None)])
        self.assertEqual([row["_ts"] for row in rows], commits * 2)

    def test_an_insert_over_large_documents_is_four_transactions(self):
        """What is read of 900 old documents of 30 kB is what counts."""
        self.emulator.control.mutate([{"op": "insert", "table": "t", "doc": {"id": float(key), "text": "x" * 30_000}}
                                      for key in range(900)])
        self.send = lambda: self.send_fivetran("Upsert", range(900), text="y")
        self.assertEqual(self.sizes(), [278, 278, 278, 66])

    def test_identical_content_writes_nothing(self):
        self.send_fivetran("Upsert", a=1)
        self.control("config", {"max_tx_writes": 1})
        for answer in (self.send_fivetran("Upsert", a=1), self.send_fivetran("Update", a=1),
                       self.send_airbyte(a=1)):
            self.accepted(answer)
            self.assertEqual(self.commits(), [])
        self.assertEqual(self.send_fivetran("Update", range(2), a=2).status, 200)
        self.assertEqual(len(self.commits()), 2)

    def test_an_error_loses_the_open_transaction_alone(self):
        self.send_fivetran("Upsert", a=1)
        self.control("config", {"max_tx_ranges": 20})
        self.refused(self.fivetran(*(("Update", {"id": key, "a": 2}) for key in [*range(25), 99, *range(25, 40)])),
                     404, "FivetranMissingUpdatedRow")
        self.assertEqual(len(self.commits()), 2)
        self.assertEqual(sorted(row["id"] for row in self.documents("t") if row["a"] == 2), list(range(20)))

    def test_numbers(self):
        """Every JSON number is a float64 on the airbyte route; the marks of exact values are renamed."""
        body = (b'{"tables":{"n":{"jsonSchema":{}}},"messages":[{"tableName":"n","data":{"a":9007199254740993,'
                b'"b":-0,"c":-0.0,"d":1e2,"e":18446744073709551616,"f":{"$integer":"AQAAAAAAAAA="}}}]}')
        self.accepted(self.request("POST", PREFIX + "import_airbyte_records", body, {**ADMIN, **JSON}))
        minus_zero = {"$float": "AAAAAAAAAIA="}
        self.assertEqual(self.documents("n"), [{"a": 9007199254740992.0, "b": minus_zero, "c": minus_zero, "d": 100.0,
                                                "e": 18446744073709551616.0, "f": {"source_integer": "AQAAAAAAAAA="}}])


class Clears(ImportTest):

    def test_clear_swaps_tablets_silently(self):
        self.create()
        self.fivetran(("Upsert", {"id": ONE}))
        self.insert("u", {"n": 1})
        start = self.head()
        old = self.walk(tableName="t", snapshot=start)
        self.insert("u", {"n": 2})
        before = {table["table"]: table for table in self.control("state")["tables"]}
        self.accepted(self.put("clear_tables", {"tableNames": ["t", "u", "fresh", "Bad Näme"]}))
        self.assertEqual(self.all_deltas(start), [])
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.walk(tableName="t", snapshot=start), old)
        now = {table["table"]: table for table in self.control("state")["tables"] if table["state"] == "active"}
        self.assertEqual(sorted(now), ["fresh", "source_bad_name", "t", "u"])
        self.assertEqual(now["t"]["number"], before["t"]["number"])
        self.assertNotEqual(now["t"]["tablet"], before["t"]["tablet"])
        self.accepted(self.fivetran(("Upsert", {"id": ONE})))    # its index came along
        self.assertEqual(self.post(PREFIX + "clear_tables", {"tableNames": []}).status, 405)

    def test_replace_is_never_supported(self):
        path = PREFIX + "replace_tables"
        body = {"tableNames": {"tmp": "users"}}
        self.refused(self.post(path, body), 400, "OverwriteNotSupported")
        self.refused(self.post(path, body, {}), 400, "OverwriteNotSupported")
        self.refused(self.post(path, body, {"Authorization": "Convex wrong"}), 401, "BadAdminKey")

    SCHEMA = {"tables": [{"tableName": "t", "indexes": [], "stagedDbIndexes": [], "searchIndexes": [],
                          "stagedSearchIndexes": [], "vectorIndexes": [], "stagedVectorIndexes": [],
                          "documentType": {"type": "object", "value": {
                              "n": {"fieldType": {"type": "number"}, "optional": False},
                              "tags": {"fieldType": {"type": "array", "value": {"type": "string"}}, "optional": True},
                              "kind": {"fieldType": {"type": "union", "value": [{"type": "literal", "value": "a"},
                                                                                {"type": "null"}]}, "optional": True}}}}],
              "schemaValidation": True}

    def test_declared_schema(self):
        path = PREFIX + "get_schema"
        self.assertEqual(self.get(path).body, b"null")
        self.control("config", {"schema": self.SCHEMA})
        self.assertEqual(self.get(path).body.decode(), json.dumps(self.SCHEMA, separators=(",", ":")))
        self.accepted(self.airbyte({"n": 1, "tags": ["a"], "kind": None}))
        kind = 'v.optional(v.union(v.literal("a"), v.null()))'
        whole = f"v.object({{kind: {kind}, n: v.float64(), tags: v.optional(v.array(v.string()))}})"
        for row, why in (
                ({"n": "1"}, 'Value does not match validator.\nPath: .n\nValue: "1"\nValidator: v.float64()'),
                ({}, "Object is missing the required field `n`. Consider wrapping the field validator in `v.optional(...)` "
                 f"if this is expected.\n\nObject: {{}}\nValidator: {whole}"),
                ({"n": 1, "tags": ["a", 1]}, "Value does not match validator.\nPath: .tags[1]\nValue: 1.0\nValidator: v.string()"),
                ({"n": 1, "kind": "b"}, f'Value does not match validator.\nPath: .kind\nValue: "b"\nValidator: {kind[11:-1]}'),
                ({"n": 1, "more": 1}, "Object contains extra field `more` that is not in the validator.\n\n"
                 f"Object: {{more: 1.0, n: 1.0}}\nValidator: {whole}")):
            answer = self.airbyte(row)
            self.refused(answer, 400, "SchemaEnforcementError")
            self.assertEqual(answer.json()["message"], "Failed to insert or update a document in table \"t\" because it "
                             "does not match the schema: " + why)
        self.control("config", {"schema": {**self.SCHEMA, "schemaValidation": False}})
        self.accepted(self.airbyte({"n": "1"}))


class SnapshotImport(ImportTest):

    def upload(self, data, parts=1, **target):
        token = self.post("/api/import/start_upload", None).json()["uploadToken"]
        size = -(-len(data) // parts)
        for number in range(parts):
            answer = self.request("POST", f"/api/import/upload_part?uploadToken={token}&partNumber={number + 1}",
                                  data[number * size:(number + 1) * size])
            self.assertEqual((answer.status, answer.json()), (200, ""))
        answer = self.post("/api/import/finish_upload", {"import": target, "uploadToken": token, "partTokens": [""] * parts})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()["importId"]

    def query(self, import_id):
        answer = self.post("/api/query", {"path": "_system/cli/queryImport", "args": {"importId": import_id},
                                          "format": "json"})
        self.assertEqual(answer.status, 200)
        return answer.json()["value"]

    def wait(self, import_id, *states):
        return wait_until(lambda: (found := self.query(import_id))["state"]["state"] in states and found)

    def confirm(self, import_id, route="perform_import"):
        return self.post("/api/" + route, {"importId": import_id})

    def one_shot(self, data, query):
        return self.request("POST", "/api/import?" + query, data)

    def test_one_shot(self):
        answer = self.one_shot(b'{"a":1,"b":{"c":[2]}}\n{"a":"x"}', "tableName=t&format=jsonLines")
        self.assertEqual(answer.body, b'{"numWritten":2}')
        self.assertEqual(sorted(map(str, self.documents("t"))), ["{'a': 'x'}", "{'a': 1.0, 'b': {'c': [2.0]}}"])
        self.refused(self.one_shot(b"{}", "tableName=t&format=jsonLines"), 400, "ImportFailed")
        self.assertEqual(self.one_shot(b"{}", "tableName=t&format=jsonLines&mode=replace").json(), {"numWritten": 1})
        self.assertEqual(self.one_shot(b"[{}, {}]", "tableName=t&format=jsonArray&mode=append").json(), {"numWritten": 2})
        self.assertEqual(len(self.documents("t")), 3)

    def test_arguments(self):
        for query, code in (("format=zip&tableName=t", "InvalidName"), ("format=csv", "InvalidName"),
                            ("format=jsonLines&tableName=a%20b", "ImportInvalidName"),
                            ("format=zip&componentPath=a%20b", "InvalidComponentPath"),
                            ("tableName=t", "BadQueryArgs"), ("format=x&tableName=t", "BadQueryArgs"),
                            ("format=csv&tableName=t&mode=x", "BadQueryArgs"),
                            ("format=csv&format=csv&tableName=t", "BadQueryArgs")):
            self.refused(self.one_shot(b"{}", query), 400, code)
        for path in ("perform_import", "cancel_import"):
            self.refused(self.confirm("nonsense", path), 400, "InvalidImport")
            self.refused(self.confirm(values.encode_id(523, bytes(16)), path), 404, "ImportNotFound")
        self.refused(self.request("POST", "/api/import/upload_part?uploadToken=x", b""), 400, "BadQueryArgs")

    def test_states(self):
        """uploaded, waiting_for_confirmation, in_progress, completed; confirming early or late does nothing."""
        self.insert("t", {"old": 1})
        self.control("config", {"import_hold": "uploaded"})
        import_id = self.upload(b'{"n":1}\n{"n":2}\n', parts=3, tableName="t", format="jsonLines", mode="replace")
        found = self.query(import_id)
        self.assertEqual((found["state"], found["checkpoints"]), ({"state": "uploaded"}, None))
        self.accepted(self.confirm(import_id))
        self.assertEqual(self.query(import_id)["state"], {"state": "uploaded"})
        self.control("config", {"import_hold": "in_progress"})
        found = self.wait(import_id, "waiting_for_confirmation")
        self.assertEqual(sorted(found), [
            "_creationTime", "_id", "checkpoints", "component_path", "format", "fq_object_key", "member_id", "mode",
            "requestor", "state"])
        self.assertTrue(found["state"]["require_manual_confirmation"])
        self.assertIn("1 of 1", found["state"]["message_to_confirm"])
        self.assertEqual((found["format"], found["mode"]), ({"format": "jsonl", "table": "t"}, "Replace"))
        self.assertEqual(found["checkpoints"], [{
            "component_path": None, "display_table_name": "t", "tablet_id": None, "total_num_rows_to_write": "2",
            "num_rows_written": "0", "existing_rows_in_table": "1", "existing_rows_to_delete": "1",
            "is_missing_id_field": True}])
        start = self.head()
        self.accepted(self.confirm(import_id))
        found = wait_until(lambda: (now := self.query(import_id))["checkpoints"][0]["num_rows_written"] == "2" and now)
        self.assertEqual(found["state"]["state"], "in_progress")
        self.assertTrue(found["checkpoints"][0]["tablet_id"])
        self.assertEqual([row["old"] for row in self.rows(tableName="t")], [1])    # hidden
        self.assertEqual(sorted(row["n"] for row in self.all_deltas(start)), [1, 2])
        self.assertEqual(self.get("/api/get_table_column_names").json()["byComponent"][""],
                         [{"name": "t", "columns": ["_creationTime", "_id", "old"]}])
        self.accepted(self.confirm(import_id))
        self.control("config", {"import_hold": None})
        state = self.wait(import_id, "completed")["state"]
        self.assertEqual((state["num_rows_written"], type(state["timestamp"])), ("2", str))
        self.assertEqual(sorted(row["n"] for row in self.rows(tableName="t")), [1, 2])
        self.assertFalse(any(row["_deleted"] for row in self.all_deltas(start)))
        self.refused(self.confirm(import_id, "cancel_import"), 400, "CannotCancelImport")
        self.accepted(self.confirm(import_id))

    def test_cancel_leaves_hidden_rows_in_the_log(self):
        self.insert("t", {"old": 1})
        self.control("config", {"import_hold": "in_progress", "import_batch_rows": 1})
        import_id = self.upload(b'{"n":1}\n' * 10, tableName="t", format="jsonLines", mode="replace")
        self.wait(import_id, "waiting_for_confirmation")
        start = self.head()
        self.confirm(import_id)
        wait_until(lambda: self.query(import_id)["checkpoints"][0]["num_rows_written"] != "0")
        self.accepted(self.confirm(import_id, "cancel_import"))
        state = self.query(import_id)["state"]
        self.assertEqual((state["state"], state["error_message"]), ("failed", "Import canceled"))
        self.assertEqual([row["old"] for row in self.rows(tableName="t")], [1])
        self.assertEqual(len(self.all_deltas(start)), 2)
        self.control("config", {"import_hold": None})
        answer = self.one_shot(b'{"n":5}', "tableName=t&format=jsonLines&mode=replace")
        self.assertEqual(answer.status, 200)    # the worker is free again
        self.assertEqual([row["n"] for row in self.rows(tableName="t")], [5])

    def test_an_import_under_way_can_be_fed_by_hand(self):
        self.insert("t", {"old": 1})
        op = {"op": "insert", "table": "t", "hidden": True, "doc": {"n": 7}}
        self.assertEqual(self.post("/_emulator/mutate", {"ops": [op]}).status, 400)
        self.control("config", {"import_hold": "in_progress", "import_batch_rows": 1})
        import_id = self.upload(b'{"n":1}\n' * 2, tableName="t", format="jsonLines", mode="replace")
        self.wait(import_id, "waiting_for_confirmation")
        start = self.head()
        self.confirm(import_id)
        wait_until(lambda: self.query(import_id)["checkpoints"][0]["num_rows_written"] != "0")
        self.assertEqual(self.post("/_emulator/mutate", {"ops": [op]}).status, 200)
        self.assertEqual(self.all_deltas(start)[-1]["n"], 7)
        self.assertEqual([row["old"] for row in self.rows(tableName="t")], [1])
        self.control("config", {"import_hold": None})
        self.wait(import_id, "completed")
        self.assertEqual(sorted(row["n"] for row in self.rows(tableName="t")), [1, 1, 7])

    def test_uniform_zip_keeps_types_ids_and_times(self):
        ids, data = backup_zip()
        self.insert("doomed", {"x": 1})
        import_id = self.upload(data, format="zip", mode="replaceAll")
        self.wait(import_id, "waiting_for_confirmation")
        self.confirm(import_id)
        self.wait(import_id, "completed")
        rows = self.rows()
        users = [row for row in rows if row["_table"] == "users"]
        self.assertEqual([(row["_id"], row["_creationTime"], row["f"]) for row in users],
                         [(one, 1750000000000.5, 1.0) for one in ids])
        self.assertEqual(users[1]["n"], ONE)
        self.assertEqual({(row["_component"], row["_table"]) for row in rows},
                         {("", "users"), ("billing/ledger", "plain")})
        self.assertEqual(self.documents("empty"), [])
        self.assertEqual(self.query(values.encode_id(523, bytes(16))), None)

    def test_failures(self):
        one, other = values.encode_id(10001, bytes(16)), values.encode_id(10002, bytes(16))
        for data, query, text in (
                (b'{"a":1}\nnonsense', "format=jsonLines", "Row 2 wasn't valid JSON"),
                (b'{"a":1}\n\n{"a":1}', "format=jsonLines", "Row 2"),
                (b'\xef\xbb\xbf{"a":1}', "format=jsonLines", "BOM"),
                (b"[1]", "format=jsonArray", "Row 1"), (b"{}", "format=jsonArray", "Not a JSON array"),
                (b'{"a":{"$integer":"AQAAAAAAAAA="}}', "format=jsonLines", "$integer"),
                (b'{"_x":1}', "format=jsonLines", "underscore"),
                (b"a,b\n1\n", "format=csv", "doesn't have all of the fields"),
                (b"not a zip", "format=zip", "invalid zip"),
                (f'{{"_id":"{one}"}}\n{{"_id":"{one}"}}'.encode(), "format=jsonLines", "duplicate _id"),
                (f'{{"_id":"{one}"}}\n{{"_id":"{other}"}}'.encode(), "format=jsonLines", "different deployment"),
                (f'{{"_id":"{one}x"}}'.encode(), "format=jsonLines", "invalid _id"),
                (b'{"_creationTime":-1}', "format=jsonLines", "_creationTime")):
            table = "" if "zip" in query else "tableName=t&"
            answer = self.one_shot(data, table + query)
            self.refused(answer, 400, "ImportFailed")
            self.assertIn(text, answer.json()["message"])
        self.assertEqual(self.rows(), [])
        self.insert("u", {"_id": one})
        answer = self.one_shot(f'{{"_id":"{one}"}}'.encode(), "tableName=t&format=jsonLines")
        self.assertIn("conflict with existing table `u`", answer.json()["message"])

    def test_batches_of_one_table(self):
        self.control("config", {"import_batch_rows": 100})
        start = self.head()
        one = values.encode_id(10001, bytes(16))
        answer = self.one_shot(b'{"n":1}\n' * 250, "tableName=t&format=jsonLines&mode=append")
        self.assertEqual(answer.json(), {"numWritten": 250})
        self.assertEqual(len({row["_ts"] for row in self.all_deltas(start)}), 3)
        lines = [f'{{"_id":"{one}"}}'.encode()] + [b"{}"] * 150 + [f'{{"_id":"{one}"}}'.encode()]
        answer = self.one_shot(b"\n".join(lines), "tableName=t&format=jsonLines&mode=replace")
        self.assertIn("already exists", answer.json()["message"])

    def test_csv(self):
        self.control("config", {"schema": {"tables": [{"tableName": "t", "documentType": {"type": "object", "value": {
            "o": {"fieldType": {"type": "string"}, "optional": True}}}}], "schemaValidation": False}})
        data = ' a ,b,o\n1,"x, ""y""",\n-1.5e3,,z\nnan,1_0,é\n'.encode()
        self.assertEqual(self.one_shot(data, "tableName=t&format=csv").json(), {"numWritten": 3})
        self.assertEqual(sorted(map(str, self.documents("t"))), sorted(map(str, [
            {"a": 1.0, "b": 'x, "y"'}, {"a": -1500.0, "b": "", "o": "z"}, {"a": None, "b": "1_0", "o": "é"}])))

    def test_import_into_a_new_component(self):
        answer = self.one_shot(b'{"n":1}', "tableName=t&format=jsonLines&componentPath=a/b")
        self.assertEqual(answer.json(), {"numWritten": 1})
        self.assertEqual([row["_component"] for row in self.rows()], ["a/b"])

    def test_query_function(self):
        answer = self.post("/api/query", {"path": "no:such", "args": {}})
        self.assertEqual((answer.status, answer.json()["status"]), (200, "error"))
        body = {"path": "_system/cli/queryImport", "args": {"importId": values.encode_id(523, bytes(16))}}
        self.assertEqual(self.post("/api/query", body).json(), {"status": "success", "value": None})
        self.assertEqual(self.post("/api/query", body, {}).json()["status"], "error")
        self.control("config", {"keys": {"prod:x|no-view": ["deployment:backups:import"]}})
        answer = self.post("/api/query", body, {"Authorization": "Convex prod:x|no-view"})
        self.assertEqual(answer.json()["status"], "error")
        self.assertRegex(answer.json()["errorMessage"], r"\A\[Request ID: [0-9a-f]{16}\] Server Error\nYou do not have "
                         r"permission to perform this operation \(deployment:backups:view\)\.\Z")
        self.refused(self.request("POST", "/api/query", b"{}", {**ADMIN, **JSON}), 400, "BadJsonBody")

    def test_the_list_of_imports(self):
        """The first that `npx convex import` asks for: the newest twenty, and no arguments."""
        def listed(args=None, **more):
            return self.post("/api/query", {"path": "_system/cli/queryImport:list", "args": args or {}, **more})
        self.assertEqual(listed().json(), {"status": "success", "value": []})
        for number in range(22):
            self.post(f"/api/import?tableName=t{number}&format=jsonLines&mode=append", {"n": 1})
        found = listed(args=[{}], format="convex_encoded_json").json()["value"]
        self.assertEqual([each["format"]["table"] for each in found], [f"t{number}" for number in range(21, 1, -1)])
        self.assertEqual(found[0]["state"]["num_rows_written"], ONE)
        self.assertIn("extra field `x`", listed({"x": 1}).json()["errorMessage"])
        self.assertEqual(self.post("/api/query", {"path": "_system/cli/queryImport:list", "args": {}}, {})
                         .json()["errorMessage"].split("\n")[1], "Operation query not permitted")

    def test_pages_of_a_table(self):
        """The newest document first; a page that is full may not be the last."""
        def asked(args, key=ADMIN):
            return self.post("/api/query", {"path": "_system/frontend/paginatedTableDocuments", "args": args,
                                            "format": "convex_encoded_json"}, key).json()

        def page(cursor, items=2, table="t"):
            return asked({"table": table, "filters": None, "paginationOpts": {"numItems": items, "cursor": cursor}})
        self.control("mutate", {"ops": [{"op": "insert", "table": "t", "doc": {"n": n, "_creationTime": 1.0 + n}}
                                        for n in range(4)]})
        first = page(None)["value"]
        self.assertEqual(([row["n"] for row in first["page"]], first["isDone"]), ([3, 2], False))
        second = page(first["continueCursor"])["value"]
        self.assertEqual(([row["n"] for row in second["page"]], second["isDone"]), ([1, 0], False))
        last = page(second["continueCursor"])["value"]
        self.assertEqual((last["page"], last["isDone"], last["pageStatus"]), ([], True, None))
        self.assertEqual(page(None, table="none")["value"]["page"], [])
        self.assertIn("required field `filters`", asked({"table": "t"})["errorMessage"])
        self.assertIn("Operation query not permitted", asked({"table": "t"}, {})["errorMessage"])
        self.control("config", {"keys": {"prod:x|import": ["deployment:backups:import"]}})
        self.assertIn("deployment:data:view", asked({}, {"Authorization": "Convex prod:x|import"})["errorMessage"])

    def test_what_a_key_may_do(self):
        def told(key):
            answer = self.get("/api/check_admin_key", {"Authorization": f"Convex {key}"})
            self.assertEqual(answer.status, 200)
            return answer.json()
        self.assertEqual(self.get("/api/check_admin_key").json(),
                         {"success": True, "allowedOps": [], "isReadOnly": False})
        read_only = self.get("/api/check_admin_key", READ_ONLY).json()
        self.assertTrue(read_only["isReadOnly"])
        self.assertIn("ViewData", read_only["allowedOps"])
        self.assertNotIn("ImportBackups", read_only["allowedOps"])
        self.control("config", {"keys": {"prod:x|some": ["deployment:backups:import"]}})
        self.assertEqual(told("prod:x|some"), {"success": True, "allowedOps": ["ImportBackups"], "isReadOnly": False})
        self.refused(self.get("/api/check_admin_key", {}), 403, "BadDeployKey")
        self.refused(self.get("/api/check_admin_key", {"Authorization": "Convex x"}), 401, "BadAdminKey")


if __name__ == "__main__":
    unittest.main()
