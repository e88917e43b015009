"""The member `index` of filters, what the database knows of indexes beyond the schema, and what questions cost."""

import unittest

import convex_values
import synthetic
import values
from testing import PAGINATED, READ_ONLY, QueryTest, clause, encode_filter

INDEXES = "_system/frontend/indexes"
STRING_NUL = "a\0b"


def equal(*value, enabled=True):
    return {"type": "indexEq", "enabled": enabled, **({"value": value[0]} if value else {})}


def between(lower=None, upper=None, enabled=True):
    """Each side is (op, value), or (op,) for a bound without a value."""
    found = {"type": "indexRange", "enabled": enabled}
    for name, side in (("lower", lower), ("upper", upper)):
        if side is not None:
            found[name + "Op"] = side[0]
            if len(side) > 1:
                found[name + "Value"] = side[1]
    return found


class IndexTest(QueryTest):

    def filter(self, name, *clauses, conditions=(), order="asc"):
        return encode_filter(conditions, order=order, index={"name": name, "clauses": list(clauses)})

    def found(self, name, *clauses, table="t", **more):
        return [row["n"] for row in self.all_rows(table, self.filter(name, *clauses, **more))]

    def thrown(self, name, *clauses, table="t", **more):
        return self.error(PAGINATED, self.page_args(table, self.filter(name, *clauses, **more)))

    def in_page(self, name, *clauses, table="t", **more):
        """The text of an error that is an element of the page."""
        page = self.page(table, self.filter(name, *clauses, **more))
        element, = page["page"]
        self.assertEqual(page, {"continueCursor": "", "isDone": True, "page": [{"error": element["error"], "filter": -1.0}]})
        return element["error"]


class Clauses(IndexTest):

    def setUp(self):
        super().setUp()
        rows = [("x", 1), ("x", 2), ("y", 1), ("x", 2), (None, 3), (..., 4), ("x", ...), (STRING_NUL, 1), ("a", 1), (5, 5)]
        self.insert("t", *({"n": n, **{name: value for name, value in zip(("s", "m"), row) if value is not ...}}
                           for n, row in enumerate(rows)))
        self.declare(t=[("by_s", "s"), ("by_sm", "s", "m"), ("by_s_declared", "s", "_creationTime"), ("by_deep", "o.p")])

    def test_the_order_of_an_index_has_all_documents_and_ties_by_creation(self):
        whole = [5, 4, 9, 8, 7, 0, 1, 3, 6, 2]
        for name in ("by_s", "by_s_declared"):
            self.assertEqual(self.found(name), whole)
            self.assertEqual(self.found(name, order="desc"), whole[::-1])
        self.assertEqual(self.found("by_sm"), [5, 4, 9, 8, 7, 6, 0, 1, 3, 2])
        self.assertEqual(self.found("by_s", equal("x", enabled=False)), whole)
        self.assertEqual(self.found("by_deep"), list(range(10)))

    def test_clauses_stand_for_fields_by_position(self):
        self.assertEqual(self.found("by_sm", equal("x")), [6, 0, 1, 3])
        self.assertEqual(self.found("by_sm", equal("x"), equal(2)), [1, 3])
        self.assertEqual(self.found("by_sm", equal("x"), equal(2), order="desc"), [3, 1])
        self.assertEqual(self.found("by_sm", equal("x"), between(("gt", 1))), [1, 3])
        self.assertEqual(self.found("by_sm", equal("x"), between(("gte", 1), ("lt", 2))), [0])
        self.assertEqual(self.found("by_sm", between(("gte", "x"))), [6, 0, 1, 3, 2])
        rows = self.page()["page"][::-1]
        self.assertEqual(self.found("by_sm", equal("x"), equal(2), equal(rows[3]["_creationTime"])), [3])
        self.assertEqual(self.found("by_s", equal("x"), between(("gt", rows[1]["_creationTime"]))), [3, 6])

    def test_a_missing_value_is_undefined(self):
        self.assertEqual(self.found("by_s", equal()), [5])
        self.assertEqual(self.found("by_s", equal(convex_values.UNDEFINED_PLACEHOLDER)), [5])
        self.assertEqual(self.found("by_s", equal(None)), [4])
        self.assertEqual(self.found("by_sm", equal("x"), equal()), [6])
        self.assertEqual(self.found("by_s", between(("gt",))), [4, 9, 8, 7, 0, 1, 3, 6, 2])
        self.assertEqual(self.found("by_s", between(None, ("lte",))), [5])

    def test_bounds_are_beginnings_of_keys(self):
        self.assertEqual(self.found("by_s", equal("a")), [8, 7])
        self.assertEqual(self.found("by_s", between(("gte", "a"), ("lte", "a"))), [8, 7])
        self.assertEqual(self.found("by_s", between(("gt", "a"))), [0, 1, 3, 6, 2])    # and not 7
        self.assertEqual(self.found("by_s", between(("gte", "a"), ("lt", "b"))), [8, 7])
        self.assertEqual(self.found("by_s", conditions=[clause("s", "gt", "a"), clause("s", "lt", "b")]), [7])

    def test_ranges_go_across_types(self):
        self.assertEqual(self.found("by_s", between(None, ("lt", "a"))), [5, 4, 9])
        self.assertEqual(self.found("by_s", between(("gte", 0))), [9, 8, 7, 0, 1, 3, 6, 2])
        self.assertEqual(self.found("by_s", between(("gte", ""), ("lt", {"$bytes": ""}))), [8, 7, 0, 1, 3, 6, 2])
        self.assertEqual(self.found("by_s", between(("gte", "y"), ("lt", "x"))), [])

    def test_conditions_apply_to_what_the_index_yields(self):
        self.assertEqual(self.found("by_s", equal("x"), conditions=[clause("m", "eq", 2)]), [1, 3])
        self.assertEqual(self.last_request()["documents_read"], 4)

    def test_documents_change_their_places(self):
        row = self.page(filters=self.filter("by_s", equal("y")))["page"][0]
        before = self.head()
        self.mutate({"op": "patch", "table": "t", "id": row["_id"], "doc": {"s": "x", "m": 0}})
        self.assertEqual(self.found("by_s", equal("y")), [])
        self.assertEqual(self.found("by_sm", equal("x")), [6, 2, 0, 1, 3])
        old = self.all_rows(filters=self.filter("by_s", equal("y")), ts=before)
        self.assertEqual(old, [row])
        self.mutate({"op": "patch", "table": "t", "id": row["_id"], "doc": {"s": "y"}})
        self.mutate({"op": "patch", "table": "t", "id": row["_id"], "doc": {"s": "y", "z": 1}})
        self.assertEqual(self.found("by_s", equal("y")), [2])

    def test_the_built_in_indexes(self):
        rows = self.page()["page"][::-1]
        self.assertEqual(self.found("by_creation_time"), list(range(10)))
        self.assertEqual(self.found("by_creation_time", equal(rows[4]["_creationTime"])), [4])
        self.assertEqual(self.found("by_creation_time", between(("gte", rows[3]["_creationTime"]), ("lt", rows[6]["_creationTime"])),
                                    order="desc"), [5, 4, 3])
        by_id = sorted(rows, key=lambda row: row["_id"])
        self.assertEqual(self.found("by_id"), [row["n"] for row in by_id])
        self.assertEqual(self.found("by_id", equal(rows[4]["_id"])), [4])
        self.assertEqual(self.found("by_id", between(("gt", by_id[3]["_id"]), ("lte", by_id[6]["_id"]))),
                         [row["n"] for row in by_id[4:7]])
        self.assertEqual(self.found("by_id", between(("gt", 5), ("lt", ""))), [])
        self.assertEqual(self.found("by_id", equal("nonsense")), [])
        self.control("config", {"schema": None})
        self.assertEqual(len(self.found("by_id")), 10)

    def test_errors_in_the_page(self):
        self.assertEqual(self.in_page("nope"), "Index nope does not exist.")
        self.assertEqual(self.in_page("by_s", equal(1), equal(1), equal(1)),
                         "Index by_s has 2 fields, but the query has 3 clauses.")
        self.assertEqual(self.in_page("by_s", equal(1), equal(1, enabled=False), equal(1, enabled=False)),
                         "Index by_s has 2 fields, but the query has 3 clauses.")
        self.assertIn("enabled clause after an disabled", self.in_page("by_s", equal(1, enabled=False), equal(1)))
        self.assertIn("enabled clause after an disabled", self.in_page("by_s", {"type": "indexEq", "value": 1}, equal(1)))
        self.assertIn("range filter after a non-range", self.in_page("by_sm", between(("gt", 1)), equal(1), equal(enabled=False)))
        self.assertEqual(self.in_page("nope", table="none"), "Index nope does not exist.")
        page = self.page(filters=self.filter("nope", conditions=[clause("n", "eq", {"$integer": "x"})]))
        self.assertEqual(page["page"][0]["filter"], 0.0)    # errors of clauses come first

    def test_errors_that_are_thrown(self):
        self.assertIn("Index range not supported", self.thrown("by_sm", between(("gt", 1)), equal(1)))
        self.assertIn("Index none.by_id not found.", self.thrown("by_id", table="none"))
        self.assertIn("TypeError", self.thrown("by_s", between(("like", 1))))
        self.assertIn("starts with a '$'", self.thrown("by_s", equal({"$integer": "x"})))
        for index in ("by_s", {"name": "by_s"}):
            text = encode_filter(index=index)
            self.assertIn("TypeError", self.error(PAGINATED, self.page_args(filters=text)))
        self.assertEqual(len(self.page(filters=encode_filter(index=None))["page"]), 10)

    def test_an_index_without_clauses_still_makes_another_query(self):
        cursor = self.page(filters=encode_filter(order="asc"), items=2)["continueCursor"]
        args = self.page_args(filters=self.filter("by_creation_time"), cursor=cursor)
        self.assertIn("InvalidCursor", self.error(PAGINATED, args))

    def test_pages_of_a_range(self):
        asked = self.filter("by_sm", equal("x"), order="desc")
        numbers, cursor = [], None
        for is_done in (False, False, True):
            page = self.page(filters=asked, cursor=cursor, items=2)
            numbers.append([row["n"] for row in page["page"]])
            self.assertEqual(page["isDone"], is_done)
            cursor = page["continueCursor"]
        self.assertEqual(numbers, [[3, 1], [0, 6], []])


class States(IndexTest):
    """Indexes come, go, wait and are renamed while a client reads."""

    def setUp(self):
        super().setUp()
        self.insert("t", *({"n": n, "s": "x"} for n in range(3)))
        self.insert("t", {"n": 9, "s": "x"}, component="billing")
        self.schema = self.declare(t=[("by_s", "s")])

    def indexes(self, table="t", namespace=None):
        return self.value(INDEXES, {"tableName": table, "tableNamespace": namespace})

    def component_id(self, path):
        return next(each["id"] for each in self.value("_system/frontend/components:list", {}) if each["path"] == path)

    def test_an_index_that_was_dropped_or_renamed(self):
        asked = self.filter("by_s", equal("x"))
        cursor = self.page(filters=asked, items=1)["continueCursor"]
        before = self.head()
        self.declare(t=[("by_new_name", "s")])
        self.assertEqual(self.in_page("by_s", equal("x")), "Index by_s does not exist.")
        self.assertEqual(self.found("by_new_name", equal("x")), [0, 1, 2])
        self.assertEqual(len(self.all_rows(filters=asked, ts=before)), 3)    # it was there then
        self.declare(t=[("by_s", "s", "n")])    # other fields under the old name
        self.assertIn("InvalidCursor", self.error(PAGINATED, self.page_args(filters=asked, cursor=cursor)))
        self.declare(t=[("by_s", "s")])
        self.assertEqual([row["n"] for row in self.page(filters=asked, cursor=cursor)["page"]], [1, 2])

    def test_a_staged_index_cannot_be_used(self):
        staged = {"indexDescriptor": "by_staged", "fields": ["n"]}
        self.schema["tables"][0]["stagedDbIndexes"] = [staged]
        self.control("config", {"schema": self.schema})
        self.assertEqual(self.in_page("by_staged"), "Index by_staged does not exist.")
        self.assertEqual(self.indexes()[1], {"backfill": {"state": "backfilled"}, "fields": ["n", "_creationTime"],
                                             "name": "by_staged", "staged": True})

    def test_an_index_that_is_not_ready(self):
        self.control("config", {"index_states": {"t.by_s": "backfilling"}})
        self.assertIn("Index t.by_s is currently backfilling and not available to query yet.", self.thrown("by_s"))
        self.assertEqual(self.indexes(), [{"backfill": {"state": "backfilling", "stats": {"numDocsIndexed": 1, "totalDocs": 3}},
                                           "fields": ["s", "_creationTime"], "name": "by_s", "staged": False}])
        self.assertEqual(self.get("/api/get_indexes").json()["indexes"][0]["backfill"], {"state": "in_progress"})
        self.control("config", {"index_states": {"t.by_s": "backfilled"}})
        self.assertIn("currently backfilling", self.thrown("by_s"))
        self.assertEqual(self.get("/api/get_indexes").json()["indexes"][0]["backfill"], {"state": "done"})
        self.control("config", {"index_states": {"t.by_s": "missing"}})
        self.assertIn("Index t.by_s not found.", self.thrown("by_s"))
        self.assertEqual((self.indexes(), self.get("/api/get_indexes").json()), ([], {"indexes": []}))
        self.control("config", {"index_states": {}})
        self.assertEqual(self.found("by_s"), [0, 1, 2])
        answer = self.request("POST", "/_emulator/config", {"index_states": {"t.by_s": "odd"}}, {})
        self.assertEqual(answer.status, 400)

    def test_only_the_active_schema_of_the_component_counts(self):
        billing = self.component_id("billing")

        def asked():
            return self.page(filters=self.filter("by_s"), componentId=billing)["page"]
        self.assertEqual(asked()[0]["error"], "Index by_s does not exist.")
        self.control("config", {"schemas_in_progress": {"billing": self.schema}})
        self.assertEqual(asked()[0]["error"], "Index by_s does not exist.")
        self.declare("billing", t=[("by_s", "s")])
        self.assertEqual([row["n"] for row in asked()], [9])
        self.control("config", {"index_states": {"billing:t.by_s": "backfilling"}})
        text = self.error(PAGINATED, self.page_args(filters=self.filter("by_s"), componentId=billing))
        self.assertIn("Uncaught Error: Uncaught Error: Index t.by_s is currently backfilling", text)
        self.assertEqual(self.found("by_s"), [0, 1, 2])

    def test_other_kinds_of_indexes(self):
        self.schema["tables"][0].update({
            "searchIndexes": [{"indexDescriptor": "search", "searchField": "s", "filterFields": ["n"]}],
            "vectorIndexes": [{"indexDescriptor": "vector", "vectorField": "v", "dimensions": 3, "filterFields": []}]})
        self.control("config", {"schema": self.schema})
        self.assertIn("is a search index, but the query is trying to use it as a database index", self.in_page("search"))
        self.assertEqual(self.in_page("vector"), "Index vector does not exist.")
        on_n = {"field": "n", "enabled": True, "value": 1}
        for name, clauses, order, number, text in (
                ("nope", [], "asc", -1, "Index nope does not exist."), ("by_s", [], "asc", -1, "is not a search index"),
                ("search", [], "desc", -1, "in descending order"), ("search", [on_n, on_n], "asc", 0, "multiple filters"),
                ("search", [on_n, {**on_n, "field": "s"}], "asc", 1, "found a filter for field `s` which is not part")):
            index = {"name": name, "search": "words", "clauses": clauses}
            element, = self.page(filters=encode_filter(order=order, index=index))["page"]
            self.assertEqual((element["filter"], text in element["error"]), (number, True), element)
        self.assertIn("has no search", self.error(PAGINATED, self.page_args(filters=encode_filter(
            order="asc", index={"name": "search", "search": "words", "clauses": [on_n]}))))
        self.assertEqual([index["fields"] for index in self.indexes()], [
            ["s", "_creationTime"], {"filterFields": ["n"], "searchField": "s"},
            {"dimensions": 3, "filterFields": [], "vectorField": "v"}])

    def test_the_indexes_of_imports_cannot_be_used_but_show(self):
        self.mutate({"op": "index", "table": "t", "fields": ["n"]})
        self.assertEqual(self.in_page("_fivetran_by_primary_key"), "Index _fivetran_by_primary_key does not exist.")
        self.assertEqual(self.indexes()[1], {"backfill": {"state": "done"}, "fields": ["n", "_creationTime"],
                                             "name": "_fivetran_by_primary_key", "staged": False})
        self.assertEqual(len(self.get("/api/get_indexes").json()["indexes"]), 1)

    def test_indexes_takes_a_namespace(self):
        self.assertIn("required field `tableNamespace`", self.error(INDEXES, {"tableName": "t"}))
        self.assertIn("extra field `componentId`", self.error(INDEXES, {"tableName": "t", "tableNamespace": None, "componentId": None}))
        self.declare("billing", t=[("by_n", "n")])
        self.assertEqual([index["name"] for index in self.indexes("t", self.component_id("billing"))], ["by_n"])
        for table, namespace in (("none", None), (None, None), ("", None), ("t", "x"), ("t", self.component_id(""))):
            self.assertIsNone(self.indexes(table, namespace))
        self.assertIsNone(self.value(INDEXES, {"tableNamespace": None}))

    def test_get_indexes(self):
        self.declare("billing", t=[("by_n", "n")])
        answer = self.get("/api/get_indexes", READ_ONLY)
        self.assertEqual(answer.body, b'{"indexes":[{"table":"t","name":"by_s","fields":["s","_creationTime"],'
                         b'"backfill":{"state":"done"},"staged":false}]}')
        billing = self.component_id("billing")
        self.assertEqual(self.get(f"/api/get_indexes?componentId={billing}").json()["indexes"][0]["name"], "by_n")
        self.assertEqual(self.get(f"/api/get_indexes?component_id={billing}").json()["indexes"][0]["name"], "by_s")
        for component in (self.component_id(""), values.encode_id(29, bytes(16))):
            self.assertEqual(self.get(f"/api/get_indexes?componentId={component}").json(), {"indexes": []})
        self.refused(self.get("/api/get_indexes?componentId=x"), 500, "InternalServerError")
        self.refused(self.get("/api/get_indexes", {}), 403, "BadDeployKey")
        self.control("config", {"keys": {"prod:x|none": []}})
        self.refused(self.get("/api/get_indexes", {"Authorization": "Convex prod:x|none"}), 403, "OperationNotPermitted")


class Benchmark(IndexTest):
    """A table of 200,000 documents that are made when they are read."""

    seed = "bench:200000"

    def cost(self):
        return self.last_request()["documents_read"]

    def numbers(self, name, *clauses, items=5, **more):
        page = self.page("bench", self.filter(name, *clauses, **more), items=items)
        return [int(row["name"].removeprefix("Item ")) for row in page["page"]]

    def test_latest_documents_points_and_ranges_cost_what_they_return(self):
        newest = self.page("bench", items=20)["page"]
        self.assertEqual([row["name"] for row in newest], [f"Item {i}" for i in range(199_999, 199_979, -1)])
        self.assertEqual(self.cost(), 20)
        since = {"type": "indexRange", "enabled": True, "lowerOp": "gte", "lowerValue": 1750000000000 + 1000 / 4}
        self.assertEqual(self.numbers("by_creation_time", since), [1000, 1001, 1002, 1003, 1004])
        self.assertEqual(self.cost(), 5)
        ids = [values.encode_id(10001, synthetic.internal_id(i)) for i in (7, 150_000)]
        self.assertEqual(self.numbers("by_id", equal(ids[1])), [150_000])
        self.assertEqual(self.numbers("by_id", between(("gt", ids[0]))), [8, 9, 10, 11, 12])
        self.assertEqual(self.numbers("by_id", between(None, ("lt", ids[0])), order="desc"), [6, 5, 4, 3, 2])
        found = self.value("_system/frontend/listById", {"ids": [{"id": each, "tableName": "bench"} for each in ids]})
        self.assertEqual([row["name"] for row in found], ["Item 7", "Item 150000"])
        self.assertEqual(self.cost(), 2)
        self.assertEqual(self.value("_system/frontend/tableSize", {"tableName": "bench"}), 200_000)
        self.assertEqual(self.cost(), 0)

    def test_changes_over_the_documents_that_are_made(self):
        ids = [values.encode_id(10001, synthetic.internal_id(i)) for i in range(3)]
        before = self.head()
        self.mutate({"op": "delete", "table": "bench", "id": ids[1]},
                    {"op": "patch", "table": "bench", "id": ids[2], "doc": {"amount": -1}},
                    {"op": "insert", "table": "bench", "doc": {"name": "Item 200000", "_creationTime": 1750000000000.3}})
        self.assertEqual(self.numbers("by_creation_time"), [0, 200_000, 2, 3, 4])
        self.assertEqual(self.numbers("by_id", between(None, ("lte", ids[2])), order="desc"), [2, 0])
        self.assertEqual(self.value("_system/frontend/tableSize", {"tableName": "bench"}), 200_000)
        old = self.page("bench", encode_filter(order="asc"), items=3, ts=before)["page"]
        self.assertEqual([row["name"] for row in old], ["Item 0", "Item 1", "Item 2"])
        self.assertEqual(old[2]["amount"], 2 / 8)


class SmallBenchmark(IndexTest):

    seed = "bench:2000:wide"

    def test_a_declared_index_over_it(self):
        self.declare(bench_wide=[("by_city", "address.city", "count"), ("by_note", "note")])

        def numbers(name, *clauses, **more):
            rows = self.all_rows("bench_wide", self.filter(name, *clauses, **more), items=1000)
            return [int(row["name"].removeprefix("Item ")) for row in rows]
        cities = sorted(range(2000), key=lambda i: (f"City {i % 100}", i))
        self.assertEqual(numbers("by_city"), cities)
        self.assertEqual(numbers("by_city", equal("City 7"), order="desc"), list(range(1907, 0, -100)))
        self.assertEqual(numbers("by_note", equal())[:4], [1, 2, 3, 5])
        victim = values.encode_id(10001, synthetic.internal_id(107))
        self.mutate({"op": "patch", "table": "bench_wide", "id": victim, "doc": {"address": {"city": "City 7", "x": 1}}})
        self.mutate({"op": "delete", "table": "bench_wide", "id": values.encode_id(10001, synthetic.internal_id(7))})
        self.assertEqual(numbers("by_city", equal("City 7")), list(range(107, 2000, 100)))


if __name__ == "__main__":
    unittest.main()
