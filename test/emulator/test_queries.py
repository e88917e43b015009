"""Functions over HTTP answer what Convex answers: routes, order of checks, errors, timestamps, filters, pages."""

import base64
import hashlib
import json
import random
import struct
import unittest
import unittest.mock

import convex_values
import filters
import functions
import values
from function_errors import Thrown
from testing import (ADMIN, JSON, PAGINATED, READ_ONLY, QueryTest, clause, encode_filter, ts_text)
from versions import SECOND, Versions

SIZE = "_system/frontend/tableSize"
ALL = {"table": "t", "filters": None, "paginationOpts": {"numItems": 10, "cursor": None}}


class Routes(QueryTest):
    """Where functions are called, and what is looked at in which order."""

    def bad(self, answer, code):
        self.refused(answer, 400, code)

    def test_the_header_then_the_body_then_the_path_then_the_key(self):
        """Each request is wrong in all that comes later, too."""
        wrong_key = {"Authorization": "Convex nonsense"}
        for route in ("/api/query", "/api/query_at_ts"):
            def asked(body, key, route=route):
                return self.request("POST", route, json.dumps(body).encode(), {**JSON, **key})
            self.bad(asked({}, {"Authorization": "Basic abc"}), "InvalidAdminKey")
            self.bad(asked({}, {**wrong_key, "Convex-Client": "nodash"}), "InvalidClientVersion")
            self.bad(asked({}, wrong_key), "BadJsonBody")
            body = {"path": "/absolute", "args": {}, "ts": "?", "format": "none"}
            self.bad(asked(body, wrong_key), "BadConvexFunctionIdentifier")
            body["path"] = PAGINATED
            self.refused(asked(body, wrong_key), 401, "BadAdminKey")

    def test_bodies(self):
        for body in ({"args": {}}, {"path": "a:b"}, {"path": 1, "args": {}}, {"path": "a:b", "args": {}, "format": 1}, []):
            self.bad(self.post("/api/query", body), "BadJsonBody")
        self.bad(self.request("POST", "/api/query", b'{"path":"a:b","args":{}}', ADMIN), "BadJsonBody")
        self.bad(self.request("POST", "/api/query", b'{"path":"a:b","path":"a:b","args":{}}', {**ADMIN, **JSON}), "BadJsonBody")
        self.bad(self.post("/api/query_at_ts", {"path": "a:b", "args": {}}), "BadJsonBody")
        self.bad(self.post("/api/query_batch", {"queries": [{"path": "a:b"}]}), "BadJsonBody")
        large = {"path": "a:b", "args": {"x": "y" * (16 << 20)}}
        self.assertEqual(self.post("/api/query", large).status, 200)
        large["args"]["x"] += "y" * 3000
        self.bad(self.post("/api/query", large), "BadJsonBody")

    def test_paths(self):
        for path in ("/a:b", "../a:b", "a.ts:b", "a:b c", "", ":b", "a b:c", "a:__"):
            self.bad(self.post("/api/query", {"path": path, "args": {}}), "BadConvexFunctionIdentifier")
        for path in ("a:b", "a", "dir/a.js:b", "a//b"):
            self.assertIn("Could not find public function for", self.error(path, {}))
        self.assertEqual(self.error("dir/m.js:default", {}), "Could not find public function for 'dir/m'.")
        self.assertEqual(self.value("_system/frontend/tableSize.js:default", {"tableName": ""}), 0)

    def test_get_never_works(self):
        self.bad(self.get("/api/query?path=a:b&args={}", {}), "BadQueryArgs")

    def test_unknown_members_and_a_timestamp_are_ignored(self):
        self.insert("t", {"a": 1})
        body = {"path": SIZE, "args": {"tableName": "t"}, "ts": ts_text(1), "componentPath": "nope", "x": 1}
        self.assertEqual(self.post("/api/query", body).json(), {"status": "success", "value": 1.0})

    def test_functions_that_are_not_there(self):
        self.assertEqual(self.error("_system/frontend/nope:f", {}), "Couldn't find system module '\"_system/frontend/nope.js\"'.")
        self.assertEqual(self.error(SIZE + ":nope", {}), 'Couldn\'t find "nope" in module "_system/frontend/tableSize.js".')
        self.control("config", {"functions_missing": [PAGINATED, SIZE]})
        self.assertIn("Couldn't find system module", self.error(PAGINATED, ALL))
        self.assertIn("Couldn't find \"default\" in module", self.error(SIZE, {"tableName": "t"}))
        self.assertEqual(self.value(SIZE + ":sizeOfAllTables", {}), 0)

    def test_the_function_route_has_no_system_functions(self):
        def asked(headers=None, **body):
            return self.post("/api/function", {"path": SIZE, "args": {}, **body}, headers)
        self.assertIn("Could not find function for '_system/frontend/tableSize'. Did you forget", asked().json()["errorMessage"])
        self.refused(asked({}, path="/x"), 403, "BadDeployKey")
        self.refused(asked({"Authorization": "Convex x"}, componentPath="?"), 401, "BadAdminKey")
        self.refused(asked(componentPath="a b", path="/x"), 400, "InvalidComponentPath")
        self.refused(asked(path="/x"), 400, "BadConvexFunctionIdentifier")
        self.refused(asked(componentPath="nope"), 500, "InternalServerError")
        self.bad(asked(componentPath=1), "BadJsonBody")

    def test_a_format_is_refused_after_the_function_ran(self):
        self.insert("t", {"n": 1})
        self.bad(self.post("/api/query", {"path": PAGINATED, "args": ALL, "format": "yaml"}), "BadFormat")
        self.assertEqual(self.last_request()["documents_read"], 1)
        self.bad(self.post("/api/query", {"path": "a:b", "args": {}, "format": "yaml"}), "BadFormat")

    def test_results_in_every_format(self):
        ones = struct.unpack("<d", b"\xff" * 8)[0]
        document = {"b": 2.0, "a": {"$integer": "AQAAAAAAAAA="}, "Z": {"$bytes": "AP8="}, "zero": -0.0, "nan": None}
        self.insert("t", {**document, "nan": {"$float": base64.b64encode(struct.pack("<d", ones)).decode()}})

        def text(name, headers=ADMIN):
            body = {"path": PAGINATED, "args": ALL, **({} if name is None else {"format": name})}
            answer = self.post("/api/query", body, {**headers}).body.decode()
            return answer[answer.index('"Z"'):answer.index("}]")] + "}"
        encoded = ('"Z":{"$bytes":"AP8="},"_creationTime":T,"_id":"I","a":{"$integer":"AQAAAAAAAAA="},"b":2.0,'
                   '"nan":{"$float":"//////////8="},"zero":{"$float":"AAAAAAAAAIA="}}')
        row = json.loads("{" + text("convex_encoded_json"))

        def expected(shape):
            return shape.replace(":T", ":" + values.float_text(row["_creationTime"])).replace('"I"', f'"{row["_id"]}"')
        clean = '"Z":"AP8=","_creationTime":T,"_id":"I","a":"1","b":2.0,"nan":"NaN","zero":-0.0}'
        self.assertEqual(text("convex_encoded_json"), expected(encoded))
        self.assertEqual(text("export_json"), expected(
            '"Z":{"$bytes":"AP8="},"_creationTime":T,"_id":"I","a":1,"b":2.0,"nan":{"$float":"//////////8="},"zero":-0.0}'))
        for client, shape in ((None, clean), ("npm-1.4.2", clean), ("npm-1.4.1", encoded), ("python-0.5.0", encoded),
                              ("python-0.5.1", clean), ("npm-x", None), ("pg-1.0.0", clean)):
            if shape is not None:
                self.assertEqual(text(None, ADMIN if client is None else {**ADMIN, "Convex-Client": client}), expected(shape))

    def test_a_field_called_proto_is_lost(self):
        self.insert("t", {"a": {"__proto__": 1, "b": [{"__proto__": {}}], "__proto_": 2}})
        row, = self.page()["page"]
        self.assertEqual(row["a"], {"b": [{}], "__proto_": 2})

    def test_an_array_of_arguments(self):
        self.assertEqual(self.value(SIZE, [{"tableName": "t"}]), 0)
        self.assertIn("undefined", self.error(SIZE, []))
        self.assertIn("Value does not match validator", self.error(SIZE, 5))
        self.assertIn("Invalid arguments", self.error(SIZE, {"tableName": {"$integer": "x"}}))

    def test_arguments_beyond_the_limits_of_values_are_a_server_error(self):
        ids = [{"id": "x", "tableName": "t"}] * 8193
        body = {"path": "_system/frontend/listById", "args": {"ids": ids}}
        self.refused(self.post("/api/query", body), 500, "InternalServerError")
        body["args"]["ids"] = ids[:8192]
        self.assertEqual(self.post("/api/query", body).json()["value"], [None] * 8192)

    def test_the_shape_of_errors(self):
        answer = self.post("/api/query", {"path": SIZE, "args": {}}, {**ADMIN, "Convex-Request-Id": "my own id"})
        self.assertEqual((answer.status, sorted(answer.json())), (200, ["errorMessage", "status"]))
        text = answer.json()["errorMessage"]
        self.assertTrue(text.startswith("[Request ID: my own id] Server Error\nUncaught Error: Object is missing the "
                                        "required field `tableName`."), text)
        self.assertIn("\n    at ", text)
        self.assertNotIn("ArgumentValidationError", text)
        self.control("config", {"function_error_status": 560, "log_lines": ["[WARN] 'many'"]})
        answer = self.post("/api/query", {"path": SIZE, "args": {}})
        self.assertEqual((answer.status, answer.json()["logLines"]), (560, ["[WARN] 'many'"]))
        self.assertEqual(self.post("/api/query", {"path": SIZE, "args": {"tableName": "t"}}).json(),
                         {"status": "success", "value": 0.0, "logLines": ["[WARN] 'many'"]})
        self.control("config", {"redact_errors": True})
        self.assertRegex(self.post("/api/query", {"path": SIZE, "args": {}}).body.decode(),
                         r'\A\{"status":"error","errorMessage":"\[Request ID: \w{16}\] Server Error"\}\Z')

    def test_a_batch_is_answered_at_one_moment_and_element_by_element(self):
        self.insert("t", {"a": 1})
        size = {"path": SIZE, "args": {"tableName": "t"}}
        self.control("faults", {"action": "mutate", "ops": [{"op": "insert", "table": "t", "doc": {}}]})
        answer = self.post("/api/query_batch", {"queries": [size, {"path": "no:such", "args": {}}, size]})
        first, second, third = answer.json()["results"]
        self.assertEqual(list(answer.json()), ["results"])
        self.assertEqual((first, third), ({"status": "success", "value": 2.0},) * 2)
        self.assertEqual(second["status"], "error")
        for wrong, code in (({"path": "/x"}, "BadConvexFunctionIdentifier"), ({"format": "yaml"}, "BadFormat")):
            self.bad(self.post("/api/query_batch", {"queries": [size, {**size, **wrong}]}), code)
        asked = {"path": PAGINATED, "args": ALL, "format": "yaml"}
        self.bad(self.post("/api/query_batch", {"queries": [asked]}), "BadFormat")
        self.assertEqual(self.last_request()["documents_read"], 0)    # here the format comes before the run
        self.refused(self.post("/api/query_batch", {"queries": [{**size, "path": "/x"}]}, {"Authorization": "Convex x"}),
                     401, "BadAdminKey")
        self.assertEqual(self.post("/api/query_batch", {"queries": []}).json(), {"results": []})


    def test_a_commit_during_a_batch_is_not_seen(self):
        run = functions.run

        def run_and_insert(*args):
            found = run(*args)
            self.emulator.control.mutate([{"op": "insert", "table": "t", "doc": {}}])
            return found
        size = {"path": SIZE, "args": {"tableName": "t"}}
        with unittest.mock.patch("functions.run", run_and_insert):
            results = self.post("/api/query_batch", {"queries": [size, size]}).json()["results"]
        self.assertEqual([result["value"] for result in results], [0, 0])
        self.assertEqual(self.value(SIZE, {"tableName": "t"}), 2)


class Permissions(QueryTest):

    def test_system_functions_are_for_administrators(self):
        acting = {"Authorization": ADMIN["Authorization"] + ":" + base64.b64encode(b"{}").decode()}
        for headers in ({}, acting):
            self.assertEqual(self.error(SIZE, {}, headers), "Operation query not permitted")
            self.assertEqual(self.error("_system/nope:f", {}, headers), "Operation query not permitted")
        self.assertIn("Could not find public function", self.error("a:b", {}, {}))

    def test_the_operation_comes_before_the_arguments_and_they_before_the_component(self):
        self.control("config", {"keys": {"prod:x|none": ["deployment:logs:view"], "prod:x|view": ["deployment:data:view"]}})
        nonsense = {"componentId": 7, "x": 1}
        self.assertEqual(self.error(SIZE, nonsense, {"Authorization": "Convex prod:x|none"}),
                         "You do not have permission to perform this operation (deployment:data:view).")
        for headers in ({"Authorization": "Convex prod:x|view"}, READ_ONLY, ADMIN):
            self.assertIn("Value does not match validator.\nPath: .componentId", self.error(SIZE, nonsense, headers))
        self.assertIn("extra field `x`", self.error(SIZE, {"componentId": "no id", "tableName": "t", "x": 1}))
        self.assertIn("componentId", self.error(SIZE, {"componentId": 5.0, "tableName": "t"}))
        self.assertIn("no id", self.error(SIZE, {"componentId": "no id", "tableName": "t"}))
        self.assertIn("permission", self.error("_system/cli/queryImport", {}, {"Authorization": "Convex prod:x|view"}))

    def test_some_functions_need_no_operation(self):
        self.control("config", {"keys": {"prod:x|none": []}, "deployment_state": "paused", "functions_version": "1.49.0"})
        headers = {"Authorization": "Convex prod:x|none"}
        state = "_system/frontend/deploymentState:deploymentState"
        self.assertEqual(self.call(state, {}, headers)["value"], {"state": "paused"})
        self.assertEqual(self.call("_system/frontend/getVersion", {}, headers)["value"], "1.49.0")
        self.assertEqual(self.error(state, {}, {}), "Operation query not permitted")

    def test_what_a_key_may_do(self):
        def told(headers):
            return self.get("/api/check_admin_key", headers).json()
        self.assertEqual(told(ADMIN), {"allowedOps": [], "isReadOnly": False, "success": True})
        self.assertEqual(sorted(told(READ_ONLY)["allowedOps"]), sorted((
            "ViewEnvironmentVariables", "ViewLogs", "ViewMetrics", "ViewIntegrations", "ViewData", "ViewBackups",
            "DownloadBackups", "RunInternalQueries", "RunTestQuery", "ViewAuditLog", "ViewUsageLimits", "ViewUsage")))
        self.control("config", {"keys": {"prod:x|some": ["deployment:data:write", "deployment:data:view"]}})
        self.assertEqual(told({"Authorization": "Convex prod:x|some"}),
                         {"allowedOps": ["ViewData", "WriteData"], "isReadOnly": False, "success": True})
        self.refused(self.get("/api/check_admin_key", {}), 403, "BadDeployKey")


class Timestamps(QueryTest):
    """Queries at a timestamp."""

    def at(self, ts, **more):
        body = {"path": SIZE, "args": {"tableName": "t"}, "ts": ts_text(ts) if isinstance(ts, int) else ts, **more}
        return self.post("/api/query_at_ts", body)

    def test_the_past_is_what_list_snapshot_shows(self):
        self.control("config", {"query_window_s": "off"})
        self.declare(t=[("by_n", "n")])
        by_n = encode_filter(order="asc", index={"name": "by_n", "clauses": []})
        rng, ids, moments = random.Random(5), [], []
        for step in range(40):
            if step % 7 == 3:
                self.page(filters=by_n)    # the order is made early, and brought up to date
            if ids and rng.random() < 0.6:
                victim = ids.pop(rng.randrange(len(ids)))
                op = {"op": "delete", "table": "t", "id": victim}
                if rng.random() < 0.5:
                    op = {"op": "patch", "table": "t", "id": victim, "doc": {"n": step}}
                    ids.append(victim)
                moments.append(self.mutate(op)["ts"])
            else:
                made = self.insert("t", {"n": rng.randrange(9)})
                ids += made["ids"]
                moments.append(made["ts"])
        for ts in [*moments, moments[3] + 1]:
            dumped = self.control(f"dump?table=t&ts={ts}")["documents"]
            seen = self.all_rows(ts=ts, items=7)
            self.assertEqual(sorted(row["_id"] for row in seen), [row["_id"] for row in dumped])
            self.assertEqual({row["_id"]: row for row in seen}, {row["_id"]: row for row in dumped})
            self.assertEqual(self.value(SIZE, {"tableName": "t"}, ts=ts), len(dumped))
            ordered = sorted(dumped, key=lambda row: (row["n"], row["_creationTime"]))
            self.assertEqual(self.all_rows(filters=by_n, ts=ts, items=4), ordered)

    def test_a_table_that_was_dropped_and_made_anew(self):
        before = self.insert("t", {"n": 1})["ts"]
        dropped = self.mutate({"op": "drop_table", "table": "t"})["ts"]
        after = self.insert("t", {"n": 2})["ts"]
        for ts, numbers in ((before, [1]), (dropped, []), (after, [2])):
            self.assertEqual([row["n"] for row in self.page(ts=ts)["page"]], numbers)
            self.assertEqual(self.value(SIZE, {"tableName": "t"}, ts=ts), len(numbers))

    def test_what_is_no_timestamp_of_this_server(self):
        head = self.insert("t", {})["ts"]
        self.assertEqual(self.at(head).json()["value"], 1)
        for wrong in (head + 1, 1 << 63, "", "AAAA", "!", ts_text(head).rstrip("="), "!" + ts_text(head)):
            self.refused(self.at(wrong), 500, "InternalServerError")
        self.refused(self.at(5), 503, "InternalServerError")
        for ts in (5, head + 1):    # who may not ask is told so first
            answer = self.post("/api/query_at_ts", {"path": SIZE, "args": {}, "ts": ts_text(ts)}, {})
            self.assertIn("Operation query not permitted", answer.json()["errorMessage"])
        self.refused(self.at(head + 1, path="no:such"), 500, "InternalServerError")
        self.refused(self.at(head + 1, path="/x"), 400, "BadConvexFunctionIdentifier")
        self.refused(self.post("/api/query_at_ts", {"path": SIZE, "args": {}, "ts": "!"}, {"Authorization": "Convex x"}),
                     401, "BadAdminKey")

    def test_query_ts_can_be_read_at_and_list_snapshot_takes_it(self):
        self.insert("t", {})
        ts = self.post("/api/query_ts", {}, {}).json()["ts"]
        self.assertEqual(self.at(ts).json()["value"], 1)
        number, = struct.unpack("<Q", base64.b64decode(ts))
        self.assertEqual(self.post("/api/list_snapshot", {"snapshot": number}).status, 200)

    def test_the_window_on_the_wire(self):
        """Time passes by a setting; the second version after a timestamp decides."""
        def insert_after(seconds):
            self.control("config", {"clock_offset_ns": int(seconds * SECOND)})
            return self.insert("t", {})["ts"]
        first = insert_after(0)
        second = insert_after(3)
        insert_after(12.5)    # 9.5 s after the second one, with a bump between
        self.assertEqual(self.at(first).status, 200)
        insert_after(13.5)
        self.refused(self.at(first), 503, "InternalServerError")
        self.assertEqual(self.at(second).status, 200)
        self.assertEqual(self.post("/api/list_snapshot", {"snapshot": first}).status, 200)

    def test_a_bump_ends_a_window_and_may_show(self):
        first = self.insert("t", {})["ts"]
        self.control("config", {"clock_offset_ns": 6 * SECOND})
        self.assertEqual(self.head(), first)
        self.control("config", {"bump_shows": True})
        self.assertEqual(self.head(), first + 5 * SECOND)
        self.assertEqual(self.at(first + 5 * SECOND).status, 200)
        self.control("config", {"clock_offset_ns": 14 * SECOND})
        self.insert("t", {})
        self.assertEqual(self.at(first).status, 200)
        self.control("config", {"clock_offset_ns": 16 * SECOND})
        self.insert("t", {})
        self.refused(self.at(first), 503, "InternalServerError")
        self.assertEqual(self.at(first + 5 * SECOND).json()["value"], 1)

    def test_a_window_of_nothing_and_none_at_all(self):
        self.control("config", {"query_window_s": 0})
        first = self.insert("t", {})["ts"]
        self.insert("t", {})
        self.assertEqual(self.at(first).json()["value"], 1)    # its successor is not older than the newest
        self.insert("t", {})
        self.refused(self.at(first), 503, "InternalServerError")
        self.control("config", {"query_window_s": "off"})
        kept = self.head()
        self.control("config", {"clock_offset_ns": 10**15})
        self.insert("t", {})
        self.insert("t", {})
        self.assertEqual(self.at(kept).json()["value"], 3)
        for wrong in (-1, "x", None):
            self.assertEqual(self.request("POST", "/_emulator/config", {"query_window_s": wrong}, {}).status, 400)

    def test_nothing_older_than_a_restart(self):
        ts = self.insert("t", {})["ts"]
        self.control("reset", {})
        self.refused(self.at(ts), 503, "InternalServerError")

    def test_the_bump_after_a_commit_is_a_version(self):
        versions = Versions(0)
        for seconds, kept in ((12, [0, 5, 12]), (16, [5, 12, 16]), (30, [16, 21, 30]), (33, [21, 30, 33])):
            versions.committed(seconds * SECOND)
            self.assertEqual([ts // SECOND for ts in versions.kept], kept)
        self.assertEqual(versions.bump(37 * SECOND), 33 * SECOND)
        self.assertEqual(versions.bump(39 * SECOND), 38 * SECOND)
        self.assertEqual(versions.bump(90 * SECOND), 38 * SECOND)    # one a commit; then the head moves hourly
        versions.idled(3638 * SECOND)
        self.assertEqual([ts // SECOND for ts in versions.kept], [38, 3638])

    def test_versions_go_when_their_successor_is_old(self):
        """The rule itself, against one that looks at all versions at once."""
        rng = random.Random(3)
        versions, added = Versions(0), [0]
        versions.bump_ns = None
        for _ in range(300):
            ts = added[-1] + rng.randrange(1, 8) * SECOND
            versions.committed(ts)
            added.append(ts)
            oldest = next(at for at in range(len(added)) if at + 2 >= len(added) or ts - added[at + 1] <= 10 * SECOND)
            self.assertEqual(list(versions.kept), added[oldest:])


class Filters(QueryTest):
    """Plain clauses."""

    def found(self, *clauses, **more):
        return [row["n"] for row in self.all_rows(filters=encode_filter(clauses, order="asc", **more))]

    def setUp(self):
        super().setUp()
        integer = {"$integer": "BQAAAAAAAAA="}
        self.rows = [{}, {"v": None}, {"v": integer}, {"v": 5}, {"v": -0.0}, {"v": 0}, {"v": True}, {"v": "a"}, {"v": "a\0"},
                     {"v": {"$bytes": "YQ=="}}, {"v": ["a"]}, {"v": {"w": 5}}, {"v": {"$float": "AAAAAAAA+H8="}},
                     {"v": {"$float": "AAAAAAAA+P8="}}]
        self.insert("t", *({"n": n, **row} for n, row in enumerate(self.rows)))

    def test_equality_knows_types_and_signs(self):
        for value, numbers in ((5, [3]), ({"$integer": "BQAAAAAAAAA="}, [2]), (None, [1]), (0, [5]),
                               ({"$float": "AAAAAAAAAIA="}, [4]), ("a", [7]), (["a"], [10]), ({"w": 5}, [11]),
                               ({"$float": "AAAAAAAA+H8="}, [12]), (convex_values.UNDEFINED_PLACEHOLDER, [0])):
            self.assertEqual(self.found(clause("v", "eq", value)), numbers)
            self.assertEqual(self.found(clause("v", "neq", value)), [n for n in range(14) if n not in numbers])

    def test_comparison_goes_across_types(self):
        self.assertEqual(self.found(clause("v", "lt", 5)), [0, 1, 2, 4, 5, 13])
        self.assertEqual(self.found(clause("v", "gte", 0)), [3, 5, 6, 7, 8, 9, 10, 11, 12])
        self.assertEqual(self.found(clause("v", "gte", {"$float": "AAAAAAAAAIA="})), [3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
        self.assertEqual(self.found(clause("v", "gt", "a"), clause("v", "lt", {"$bytes": ""})), [8])
        self.assertEqual(self.found(clause("v", "lte", "a"), clause("v", "gte", "a")), [7])
        self.assertEqual(self.found(clause("v", "lte", convex_values.UNDEFINED_PLACEHOLDER)), [0])

    def test_lists(self):
        self.assertEqual(self.found(clause("v", "anyOf", [5, "a", None])), [1, 3, 7])
        self.assertEqual(self.found(clause("v", "noneOf", [5, "a"])), [n for n in range(14) if n not in (3, 7)])
        self.assertEqual(self.found(clause("v", "anyOf", [])), list(range(14)))
        self.assertEqual(self.found(clause("v", "noneOf", [])), list(range(14)))
        self.assertEqual(self.found(clause("v", "anyOf", [convex_values.UNDEFINED_PLACEHOLDER])), [0])
        self.assertIn("Field name $integer starts with a '$'",
                      self.thrown(clause("v", "anyOf", [{"$integer": "BQAAAAAAAAA="}])))

    def thrown(self, *clauses, **more):
        return self.error(PAGINATED, self.page_args(filters=encode_filter(clauses, **more)))

    def test_paths(self):
        for field in ("v.w", ".v.w", "v.w."):
            self.assertEqual(self.found(clause(field, "eq", 5)), [11])
        self.assertEqual(self.found(clause("v.w.x", "neq", convex_values.UNDEFINED_PLACEHOLDER)), [])
        for field in ("", "..", "a..b", "a b", "é", "1a"):
            self.assertIn("Invalid argument `query` for `queryPage`", self.thrown(clause(field, "eq", 5)))

    def test_types_are_looked_at_after_the_page_was_cut(self):
        for kind, numbers in (("unset", [0]), ("null", [1]), ("bigint", [2]), ("number", [3, 4, 5, 12, 13]), ("boolean", [6]),
                              ("string", [7, 8]), ("bytes", [9]), ("array", [10]), ("object", [11]), ("id", [])):
            self.assertEqual(self.found(clause("v", "type", kind)), numbers)
            self.assertEqual(self.found(clause("v", "notype", kind)), [n for n in range(14) if n not in numbers])
        self.assertEqual(self.found(clause("v.w", "type", "unset")), list(range(14)))    # a name, not a path
        self.assertEqual(len(self.found(clause("_id", "type", "id"))), 14)
        page = self.page(filters=encode_filter([clause("v", "type", "null")], order="asc"), items=1)
        self.assertEqual((page["page"], page["isDone"]), ([], False))

    def test_clauses_that_do_not_count(self):
        everything = list(range(14))
        self.assertEqual(self.found({"op": "eq", "value": 1}), everything)
        self.assertEqual(self.found(clause("v", "eq", 5, enabled=False)), everything)
        self.assertEqual(self.found(clause("v", "eq", 5, enabled=True, id="x", other=[])), [3])
        self.assertEqual(self.found(clause("v", "gt", 4), clause("n", "lt", 5)), [3])

    def test_the_default_order_is_descending(self):
        rows = self.page(filters=encode_filter())["page"]
        self.assertEqual([row["n"] for row in rows], list(range(13, -1, -1)))

    def test_values_that_do_not_decode_are_elements_of_the_page(self):
        wrong = {"$integer": "x"}
        clauses = [clause("v", "eq", 5), clause("v", "eq", wrong, enabled=False), clause("v", "anyOf", [wrong]),
                   clause("v", "eq", {"$float": "AAAAAAAAAAA="}), clause("v", "eq", {"$float": "AAAAAAAA8D8="})]
        page = self.page(filters=encode_filter(clauses))
        self.assertEqual(page, {"continueCursor": "", "isDone": True, "page": [
            {"error": 'Invalid value: {"$integer":"x"}.', "filter": 1.0},
            {"error": 'Invalid value: [{"$integer":"x"}].', "filter": 2.0},
            {"error": 'Invalid value: {"$float":"AAAAAAAAAAA="}.', "filter": 3.0},
            {"error": 'Invalid value: {"$float":"AAAAAAAA8D8="}.', "filter": 4.0}]})
        body = {"path": PAGINATED, "args": self.page_args(filters=encode_filter(clauses)), "format": "json"}
        self.assertIn(b'"filter":1.0', self.post("/api/query", body).body)

    def test_a_missing_value_is_thrown(self):
        self.assertIn("Unexpected type of undefined", self.thrown(clause("v", "eq")))
        self.assertIn("Unexpected type of undefined", self.thrown(clause("v", "anyOf")))
        self.assertEqual(self.found(clause("v", "eq", enabled=False)), list(range(14)))

    def test_shapes_that_the_schema_of_filters_refuses(self):
        for wrong in ({"clauses": None}, {"clauses": [{}]}, {"clauses": [1]}, {"clauses": [clause("v", "like", 1)]},
                      {"clauses": [clause(5, "eq", 1)]}, {"clauses": [clause("v", "eq", 1, enabled=None)]},
                      {"clauses": [clause("v", "type", "int")]}, {"clauses": [clause("v", "anyOf", 1)]},
                      {"clauses": [], "order": None}, {"clauses": [], "order": "up"}, {"clauses": [], "op": "or"}, []):
            text = base64.b64encode(json.dumps(wrong).encode()).decode()
            self.assertIn("ZodError", self.error(PAGINATED, self.page_args(filters=text)))
        self.assertIn("ZodError", self.error(PAGINATED, self.page_args(filters=base64.b64encode(b'{"order":"asc"}').decode())))
        for text in ("x", base64.b64encode(b"{").decode(), base64.b64encode(b"nonsense").decode()):
            self.assertIn("SyntaxError", self.error(PAGINATED, self.page_args(filters=text)))

    def test_the_text_of_a_filter(self):
        plain = json.dumps({"clauses": [clause("v", "eq", "a")], "note": "ÿ??>>~~"}, ensure_ascii=False).encode()
        standard, safe = base64.b64encode(plain).decode(), base64.urlsafe_b64encode(plain).decode()
        self.assertNotEqual(standard, safe)
        for text in (standard, safe, safe.rstrip("="), safe + "\n"):
            self.assertEqual([row["n"] for row in self.page(filters=text)["page"]], [7])
        for text in (None, "", base64.b64encode(b"null").decode()):
            self.assertEqual(len(self.page(filters=text)["page"]), 14)

    def test_one_id_is_looked_up(self):
        row = self.page(filters=encode_filter([clause("v", "eq", None)]))["page"][0]

        def point(value, *more, table="t", **index):
            page = self.page(table, encode_filter([clause("_id", "eq", value), *more], **index))
            self.assertEqual(page, {"continueCursor": "", "isDone": True, "page": page["page"]})
            return page["page"]
        self.assertEqual(point(row["_id"]), [row])
        self.assertEqual(self.last_request()["documents_read"], 1)
        self.assertEqual(point(row["_id"], clause("v", "type", "string")), [row])
        self.assertEqual(point(row["_id"], clause("v", "eq", 5, enabled=False)), [row])
        self.assertEqual(point(row["_id"], index={"name": "by_creation_time", "clauses": []}), [row])
        other = self.insert("u", {})["ids"][0]
        disguised = values.encode_id(values.decode_id(other)[0], values.decode_id(row["_id"])[1])
        for value in (other, disguised, "x", 5, None, values.encode_id(10001, bytes(16))):
            self.assertEqual(point(value), [])
        self.assertEqual(point(row["_id"], table="u"), [])
        self.assertEqual(point(row["_id"], table="none"), [])
        missing = self.page(filters=encode_filter([clause("_id", "eq")]))
        self.assertEqual(missing["page"], [])
        self.mutate({"op": "delete", "table": "t", "id": row["_id"]})
        self.assertEqual(point(row["_id"]), [])
        later = {"type": "indexRange", "enabled": True, "lowerOp": "gt", "lowerValue": row["_creationTime"]}
        for more, index in (([clause("n", "gte", 0)], {}), ([], {"index": {"name": "by_creation_time", "clauses": [later]}})):
            page = self.page(filters=encode_filter([clause("_id", "eq", row["_id"]), *more], **index))
            self.assertEqual((page["page"], "pageStatus" in page), ([], True))

    def test_tables_that_are_none(self):
        self.assertEqual(self.page("none")["page"], [])
        self.assertTrue(self.page("none")["isDone"])
        self.assertIn("System tables can only be accessed from db.system.query()", self.error(PAGINATED, self.page_args("_x")))
        for name in ("", "a b"):
            self.assertIn("Invalid argument", self.error(PAGINATED, self.page_args(name)))

    def test_a_fault_ignores_the_filter(self):
        self.control("faults", {"action": "ignore_filter", "where": {"function": PAGINATED, "table": "t"}})
        self.assertEqual(self.found(clause("v", "eq", 5)), list(range(14)))
        self.assertEqual(self.found(clause("v", "eq", 5)), [3])


class Pages(QueryTest):

    def setUp(self):
        super().setUp()
        self.insert("t", *({"n": n} for n in range(10)))

    def numbers(self, page):
        return [row["n"] for row in page["page"]]

    def test_pages_follow_each_other(self):
        first = self.page(filters=encode_filter(order="asc"), items=5)
        self.assertEqual(list(first), ["continueCursor", "isDone", "page", "pageStatus", "splitCursor"])
        self.assertEqual((self.numbers(first), first["isDone"], first["pageStatus"]), ([0, 1, 2, 3, 4], False, None))
        second = self.page(filters=encode_filter(order="asc"), items=5, cursor=first["continueCursor"])
        self.assertEqual((self.numbers(second), second["isDone"]), ([5, 6, 7, 8, 9], False))    # full, and not yet done
        third = self.page(filters=encode_filter(order="asc"), items=5, cursor=second["continueCursor"])
        self.assertEqual((self.numbers(third), third["isDone"], third["splitCursor"]), ([], True, None))
        again = self.page(filters=encode_filter(order="asc"), cursor=third["continueCursor"])
        self.assertEqual((self.numbers(again), again["isDone"]), ([], True))

    def test_a_short_page_is_the_last(self):
        page = self.page(items=11)
        self.assertEqual((len(page["page"]), page["isDone"]), (10, True))

    def test_numbers_of_items(self):
        for items, text in ((0, "Must request at least 1 document while paginating"), (-1, "must be a positive number"),
                            (1.5, "Invalid arguments for `queryPage`"), (32001, "Requested too many items: 32001")):
            self.assertIn(text, self.error(PAGINATED, self.page_args(items=items)))
        self.assertIn("Value does not match validator", self.error(PAGINATED, self.page_args(items="5")))
        self.assertIn("Value does not match validator", self.error(PAGINATED, self.page_args(items={"$integer": "BQAAAAAAAAA="})))
        options = {"numItems": 1, "cursor": None}
        for more, text in (({"x": 1}, "extra field `x`"), ({"cursor": 5}, "Path: .paginationOpts.cursor"),
                           ({"id": "x"}, "Path: .paginationOpts.id")):
            self.assertIn(text, self.error(PAGINATED, {**ALL, "paginationOpts": {**options, **more}}))
        self.assertIn("required field `cursor`", self.error(PAGINATED, {**ALL, "paginationOpts": {"numItems": 1}}))
        more = {"id": 3, "endCursor": None, "maximumRowsRead": 1, "maximumBytesRead": 0}
        page = self.value(PAGINATED, {**ALL, "paginationOpts": {"numItems": 5, "cursor": None, **more}})
        self.assertEqual(len(page["page"]), 5)    # the caller's limits are overwritten

    def test_a_page_of_more_than_an_array_can_hold(self):
        self.emulator.seed("bench:8200")
        self.assertIn("Array length is too long (8193 > maximum length 8192)",
                      self.error(PAGINATED, self.page_args("bench", items=8193)))
        self.assertEqual(len(self.page("bench", items=8192)["page"]), 8192)

    def test_cursors_belong_to_a_query_and_not_to_a_moment(self):
        condition = clause("n", "gte", 0)
        asked = encode_filter([condition], order="asc")
        early = self.head()
        first = self.page(filters=asked, items=3)
        cursor = first["continueCursor"]
        self.insert("t", {"n": 10})
        self.assertEqual(self.numbers(self.page(filters=asked, cursor=cursor, items=2)), [3, 4])
        self.assertEqual(self.numbers(self.page(filters=asked, cursor=cursor))[-1], 10)
        self.assertEqual(self.numbers(self.page(filters=asked, cursor=cursor, ts=early))[-1], 9)
        same = encode_filter([{**condition, "id": "x"}, clause("n", "eq", 1, enabled=False), clause("n", "type", "number")],
                             order="asc")
        self.assertEqual(self.numbers(self.page(filters=same, cursor=cursor, items=1)), [3])
        for other in (encode_filter([condition]), encode_filter([clause("n", "gt", 0)], order="asc"), encode_filter(order="asc"),
                      encode_filter([condition], order="asc", index={"name": "by_creation_time", "clauses": []}), None):
            answer = self.call(PAGINATED, self.page_args(filters=other, cursor=cursor))
            self.assertIn("InvalidCursor: Tried to run a query starting from a cursor", answer["errorMessage"])
            self.assertEqual(answer["errorData"], {"isConvexSystemError": True, "paginationError": "InvalidCursor"})
        self.insert("u", {"n": 1})
        self.assertIn("InvalidCursor", self.error(PAGINATED, self.page_args("u", asked, cursor)))
        for garbage in ("", "x", cursor[:-2], "A" + cursor[1:], cursor + "AAAA"):
            if garbage != cursor:
                self.assertIn("Failed to parse cursor", self.error(PAGINATED, self.page_args(filters=asked, cursor=garbage)))

    def test_a_deleted_document_leaves_its_place(self):
        asked = encode_filter(order="asc")
        first = self.page(filters=asked, items=3)
        self.mutate({"op": "delete", "table": "t", "id": first["page"][2]["_id"]})
        self.assertEqual(self.numbers(self.page(filters=asked, cursor=first["continueCursor"], items=2)), [3, 4])

    def test_a_page_ends_when_too_many_rows_were_read(self):
        self.control("config", {"max_page_rows": 4})
        asked = encode_filter([clause("n", "eq", 5)], order="asc")
        first = self.page(filters=asked)
        self.assertEqual((first["page"], first["isDone"], first["pageStatus"]), ([], False, "SplitRequired"))
        self.assertEqual(self.last_request()["documents_read"], 4)
        second = self.page(filters=asked, cursor=first["continueCursor"])
        self.assertEqual((self.numbers(second), second["pageStatus"]), ([5], "SplitRequired"))
        third = self.page(filters=asked, cursor=second["continueCursor"])
        self.assertEqual((third["page"], third["isDone"], third["pageStatus"]), ([], True, None))
        self.control("config", {"max_page_rows": 10})
        whole = self.page(filters=asked)    # read to the end without knowing it
        self.assertEqual((self.numbers(whole), whole["isDone"], whole["pageStatus"]), ([5], False, "SplitRequired"))

    def test_a_page_ends_when_too_much_was_read(self):
        size = values.value_size({"_id": "x" * 32, "_creationTime": 1.0, "n": 1.0})
        self.control("config", {"max_page_bytes": 3 * size})
        page = self.page(items=10)
        self.assertEqual((len(page["page"]), page["isDone"], page["pageStatus"]), (3, False, "SplitRequired"))
        self.assertEqual(self.last_request()["bytes_read"], 3 * size)
        self.control("config", {"max_page_bytes": 3 * size - 1})
        self.assertEqual(len(self.page(items=10)["page"]), 3)    # a row may go over
        self.control("config", {"max_page_bytes": 1})
        self.assertEqual(len(self.page(items=10)["page"]), 1)

    def test_a_split_is_recommended_beyond_three_quarters(self):
        self.control("config", {"max_page_rows": 8})
        self.assertIsNone(self.page(items=6)["pageStatus"])
        self.assertEqual(self.page(items=7)["pageStatus"], "SplitRecommended")

    def test_the_split_cursor_lies_in_the_middle(self):
        asked = encode_filter(order="asc")
        self.assertIsNone(self.page(filters=asked, items=2)["splitCursor"])
        for items, follows in ((3, 2), (4, 3), (9, 5)):
            split = self.page(filters=asked, items=items)["splitCursor"]
            self.assertEqual(self.numbers(self.page(filters=asked, cursor=split, items=1)), [follows])
        filtered = encode_filter([clause("n", "eq", 99)], order="asc")
        split = self.page(filters=filtered)["splitCursor"]
        self.assertIsNotNone(split)    # of the rows read, not of those found

    def test_an_end_cursor_makes_the_page(self):
        asked = encode_filter(order="asc")
        end = self.page(filters=asked, items=7)["continueCursor"]
        page = self.value(PAGINATED, {"table": "t", "filters": asked, "paginationOpts": {
            "numItems": 1, "cursor": None, "endCursor": end}})
        self.assertEqual((self.numbers(page), page["continueCursor"], page["isDone"]), (list(range(7)), end, False))

    def test_limits_of_one_function(self):
        self.control("config", {"max_tx_documents_read": 5})
        self.assertIn("Too many documents read in a single function execution (limit: 5)",
                      self.error(PAGINATED, self.page_args()))
        self.control("config", {"max_tx_documents_read": 32000, "max_tx_bytes_read": 100})
        self.assertIn("Too many bytes read in a single function execution", self.error(PAGINATED, self.page_args()))


class Texts(unittest.TestCase):
    """What JavaScript prints."""

    def test_numbers(self):
        for number, text in ((1.0, "1"), (-0.0, "0"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1.5, "1.5"),
                             (1e-7, "1e-7"), (1e-6, "0.000001"), (1.25e-5, "0.0000125"), (1.5e300, "1.5e+300")):
            self.assertEqual(convex_values.number_text(number), text)

    def test_the_placeholder(self):
        text = convex_values.UNDEFINED_PLACEHOLDER
        self.assertEqual((len(text), hashlib.sha256(text.encode()).hexdigest()[:16]), (191, "474de94505c2b6d5"))

    def test_a_filter_is_parsed_once_it_is_one(self):
        self.assertIsNone(filters.parse(None))
        self.assertRaises(Thrown, filters.parse, "e30=")


if __name__ == "__main__":
    unittest.main()
