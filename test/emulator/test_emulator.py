"""The emulator answers what Convex answers: transport, keys, errors, values, exports, shapes, command line."""

import base64
import io
import json
import math
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

import synthetic
import values
from testing import ADMIN, JSON, MIN_ID, READ_ONLY, EmulatorTest, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
EXPORT_GETS = ("/api/test_streaming_export_connection", "/api/json_schemas", "/api/get_table_column_names",
               "/api/list_snapshot", "/api/document_deltas?cursor=1")


class Values(unittest.TestCase):
    """Ids, texts of numbers, encodings."""

    def test_ids_follow_the_published_examples(self):
        self.assertEqual(values.encode_id(10001, bytes(range(16))), "j57000820c20a1g7104gm2rc1m70ynr8")
        self.assertEqual(values.encode_id(1, bytes(16)), MIN_ID)
        self.assertEqual(len(values.encode_id(16384, bytes(16))), 34)

    def test_ids_decode_and_corrupted_ones_do_not(self):
        for number in (1, 127, 128, 10001, 16383, 16384, 1 << 21, (1 << 32) - 1):
            text = values.encode_id(number, bytes(range(16)))
            self.assertEqual(values.decode_id(text), (number, bytes(range(16))))
            for at in range(len(text)):
                other = "0" if text[at] != "0" else "1"
                self.assertIsNone(values.decode_id(text[:at] + other + text[at + 1:]))
        for text in ("", "x", "J57000820C20A1G7104GM2RC1M70YNR8", "j57000820c20a1g7104gm2rc1m70ynr", None, 5):
            self.assertIsNone(values.decode_id(text))

    def test_id_order_is_byte_order(self):
        ids = [values.encode_id(10001, struct.pack(">QQ", i * 7919 << 40, i)) for i in range(500)]
        self.assertEqual(ids, sorted(ids))

    def test_floats_print_like_serde_json(self):
        for number, text in ((1.0, "1.0"), (0.0, "0.0"), (-0.0, "-0.0"), (1e15, "1000000000000000.0"), (1e16, "1e16"),
                             (1.2345678901234568e17, "1.2345678901234568e17"), (1e-7, "1e-7"), (1e-6, "1e-6"),
                             (1e-5, "0.00001"), (-1.25e-5, "-0.0000125"), (0.1, "0.1"), (5e-324, "5e-324"),
                             (1.7976931348623157e308, "1.7976931348623157e308"), (123456.75, "123456.75")):
            self.assertEqual(values.float_text(number), text)
            self.assertEqual(float(text), number)

    def test_every_type_in_three_encodings(self):
        nan = struct.unpack("<d", bytes([0, 0, 0, 0, 0, 0, 0xf8, 0x7f]))[0]
        table = (
            (None, "null", "null", "null"),
            (True, "true", "true", "true"),
            ("a\"\\\u0000\n\u001fé\u007f", '"a\\"\\\\\\u0000\\n\\u001fé\u007f"', None, None),
            (1, '"1"', '{"$integer":"AQAAAAAAAAA="}', "1"),
            (-1, '"-1"', '{"$integer":"//////////8="}', "-1"),
            (2**53 + 1, '"9007199254740993"', '{"$integer":"AQAAAAAAIAA="}', "9007199254740993"),
            (-2**63, '"-9223372036854775808"', '{"$integer":"AAAAAAAAAIA="}', "-9223372036854775808"),
            (2**63 - 1, '"9223372036854775807"', '{"$integer":"/////////38="}', "9223372036854775807"),
            (-0.0, "-0.0", '{"$float":"AAAAAAAAAIA="}', "-0.0"),
            (nan, '"NaN"', '{"$float":"AAAAAAAA+H8="}', '{"$float":"AAAAAAAA+H8="}'),
            (math.inf, '"Infinity"', '{"$float":"AAAAAAAA8H8="}', '{"$float":"AAAAAAAA8H8="}'),
            (-math.inf, '"-Infinity"', '{"$float":"AAAAAAAA8P8="}', '{"$float":"AAAAAAAA8P8="}'),
            (b"\x00\xff", '"AP8="', '{"$bytes":"AP8="}', '{"$bytes":"AP8="}'),
            ([], "[]", "[]", "[]"),
            ({"": 1.0, "B c": [], "a": {}}, '{"":1.0,"B c":[],"a":{}}', None, None),
            ([1, 1.0], '["1",1.0]', '[{"$integer":"AQAAAAAAAAA="},1.0]', "[1,1.0]"),
        )
        for value, *texts in table:
            for value_format, text in enumerate(texts):
                text = texts[0] if text is None else text
                self.assertEqual(values.encode_value(value, value_format), text)
            back = values.from_encoded(values.parse_json(values.encode_value(value, values.ENCODED).encode()))
            self.assertTrue(values.same_value(back, value), value)
            back = values.from_export(values.parse_json(values.encode_value(value, values.EXPORT).encode()))
            self.assertTrue(values.same_value(back, value), value)

    def test_markers_are_checked(self):
        for text in (b'{"$integer":"AQ=="}', b'{"$float":"AAAAAAAA8D8="}', b'{"$date":"x"}', b'{"$a":1,"b":2}',
                     b'{"$bytes":"?"}', '{"é":1}'.encode()):
            with self.assertRaises(ValueError):
                values.from_encoded(values.parse_json(text))

    def test_json_is_strict(self):
        for text in (b"NaN", b"[1e999]", b'"\\ud800"', b"[" * 128 + b"]" * 128, b"\xff", b"01", b""):
            with self.assertRaises(ValueError):
                values.parse_json(text)
        values.parse_json(b"[" * 127 + b"]" * 127)
        values.parse_json(b'"' + b"[" * 500 + b'"')

    def test_sizes_are_convex_sizes(self):
        self.assertEqual(values.value_size({"a": 1, "bc": "é", "d": None, "e": [True, b"x"]}),
                         2 + (1 + 1 + 9) + (2 + 1 + 4) + (1 + 1 + 1) + (1 + 1 + 2 + 1 + 3))


class Transport(EmulatorTest):
    seed = "demo"

    def test_unknown_path_and_wrong_method_have_no_body(self):
        for path in ("/api/nothing", "/api/list_snapshot/", "/api/v1/data/sync"):
            answer = self.get(path)
            self.assertEqual((answer.status, answer.body), (404, b""))
        answer = self.request("PUT", "/api/list_snapshot")
        self.assertEqual((answer.status, answer.body), (405, b""))
        self.assertIn("GET", answer.headers["allow"])
        self.assertIn("POST", answer.headers["allow"])

    def test_helpers_need_no_key(self):
        for path in ("/", "/version", "/instance_version", "/instance_name"):
            answer = self.get(path, {})
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        answer = self.post("/api/query_ts", {}, {})
        self.assertEqual(struct.unpack("<Q", base64.b64decode(answer.json()["ts"]))[0], self.head())

    def test_check_order(self):
        """Client header, then GET arguments, then key, then gate, then permission, then arguments."""
        self.control("config", {"streaming_export": False})
        bad = {"Convex-Client": "foo", "Authorization": "Convex nonsense"}
        self.refused(self.get("/api/list_snapshot?snapshot=x", bad), 400, "InvalidClientVersion")
        del bad["Convex-Client"]
        self.refused(self.get("/api/list_snapshot?snapshot=x", bad), 400, "BadQueryArgs")
        self.refused(self.get("/api/list_snapshot", bad), 401, "BadAdminKey")
        self.refused(self.request("POST", "/api/list_snapshot", b"{", {**JSON, **bad}), 401, "BadAdminKey")
        self.refused(self.request("POST", "/api/list_snapshot", b"{", JSON), 400, "BadJsonBody")
        for path in EXPORT_GETS:
            self.refused(self.get(path, {}), 403, "StreamingExportNotEnabled")
        self.control("config", {"streaming_export": True})
        for path in EXPORT_GETS:
            self.refused(self.get(path, {}), 403, "BadDeployKey")
        self.assertEqual(self.get("/api/test_streaming_export_connection").body, b"null")

    def test_gate_leaves_imports_alone(self):
        self.control("config", {"streaming_export": False})
        self.assertEqual(self.get("/api/streaming_import/get_schema").body, b"null")

    def test_keys(self):
        path = "/api/test_streaming_export_connection"
        key = ADMIN["Authorization"].removeprefix("Convex ")
        acting = base64.b64encode(b'{"tokenIdentifier":"a|b","issuer":"a","subject":"b"}').decode()
        for header, status, code in (
                ("convex " + key, 200, None), ("Convex " + key.removeprefix("prod:"), 200, None),
                ("Convex", 400, "InvalidHeaderFailure"), ("Basic 123", 400, "InvalidAdminKey"),
                ("Bearer " + key, 401, "InvalidAuthHeader"), ("Convex prod:other|0123456789abcdef", 401, "BadAdminKey"),
                ("Bearer x." + base64.b64encode(b'{"iss":"i"}').decode().rstrip("=") + ".y", 401, "NoAuthProvider"),
                ("Convex " + key + ":???", 400, "HeaderParseFailure")):
            answer = self.get(path, {"Authorization": header})
            self.assertEqual((answer.status, None if status == 200 else answer.code), (status, code), header)
        self.assertEqual(self.get(f"{path}?adminKey={key.replace('|', '%7C')}", {}).status, 200)
        self.refused(self.get(f"{path}?adminKey=x", {}), 401, "BadAdminKey")
        acting_as = {"Authorization": f"Convex {key}:{acting}"}
        self.refused(self.get("/api/list_snapshot", acting_as), 403, "SystemIdentityRequired")
        self.refused(self.get("/api/document_deltas?cursor=1", acting_as), 403, "SystemIdentityRequired")

    def test_read_only_key_may_look_but_not_import(self):
        self.assertEqual(self.get("/api/list_snapshot", READ_ONLY).status, 200)
        self.refused(self.get("/api/streaming_import/get_schema", READ_ONLY), 403, "OperationNotPermitted")
        self.refused(self.request("PUT", "/api/streaming_import/clear_tables", {"tableNames": []}, READ_ONLY),
                     403, "OperationNotPermitted")

    def test_permissions_of_a_key_can_be_set(self):
        self.control("config", {"keys": {"prod:x|imports": ["deployment:backups:import"]}})
        key = {"Authorization": "Convex prod:x|imports"}
        self.assertEqual(self.get("/api/streaming_import/get_schema", key).status, 200)
        self.refused(self.get("/api/list_snapshot", key), 403, "OperationNotPermitted")

    def test_client_header(self):
        path = "/api/test_streaming_export_connection"
        for value, status, state in (("pg-convex-fdw-1.0.0", 200, None), ("whatever-x", 200, None),
                                     ("npm-0.19.1", 400, "Unsupported"), ("npm-1.0.0", 200, None),
                                     ("npm-cli-0.19.1", 400, "Unsupported"), ("npm-latest", 400, "Unsupported"),
                                     ("python-0.1.0", 200, "UpgradeRequired"), ("python-0.0.2", 400, "Unsupported"),
                                     ("foo", 400, None)):
            answer = self.get(path, {**ADMIN, "Convex-Client": value})
            self.assertEqual((answer.status, answer.headers.get("x-convex-deprecation-state")), (status, state), value)

    def test_bodies(self):
        def post(body, content_type="application/json"):
            return self.request("POST", "/api/list_snapshot", body, {**ADMIN, "Content-Type": content_type})
        self.assertEqual(post(b"{}", "application/json; charset=utf-8").status, 200)
        self.assertEqual(post(b"{}", "application/vnd.api+json").status, 200)
        for body, content_type in ((b"{}", "text/plain"), (b"", "application/json"), (b"[]", "application/json"),
                                   (b'{"snapshot":"1"}', "application/json"), (b'{"snapshot":1.0}', "application/json"),
                                   (b'{"snapshot":1,"snapshot":1}', "application/json"),
                                   (b'{"cursor":1}', "application/json"), (b'{"format":1}', "application/json"),
                                   (b'{"x":"' + b"y" * (2 << 20) + b'"}', "application/json")):
            self.refused(post(body, content_type), 400, "BadJsonBody")
        self.assertEqual(post(b'{"x":"' + b"y" * ((2 << 20) - 8) + b'"}').status, 200)

    def raw(self, data):
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(data)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
            return answer

    def test_chunked_bodies_and_pipelines(self):
        head = (b"POST /api/list_snapshot HTTP/1.1\r\nhost: x\r\nauthorization: " + ADMIN["Authorization"].encode()
                + b"\r\ncontent-type: application/json\r\n")
        chunked = head + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n13;x=y\r\n\"tableName\":\"users\"\r\n1\r\n}\r\n0\r\n\r\n"
        plain = head + b"connection: close\r\ncontent-length: 2\r\n\r\n{}"
        answer = self.raw(chunked + plain)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 2)

    def test_expect_continue(self):
        head = (b"POST /api/query_ts HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\n"
                b"content-length: 2\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(head)
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 100 "))
            sock.sendall(b"{}")
            self.assertTrue(sock.recv(1000).startswith(b"HTTP/1.1 200 "))

    def test_head_and_http_1_0(self):
        self.assertEqual(self.request("HEAD", "/version").status, 200)
        answer = self.raw(b"GET /version HTTP/1.0\r\n\r\n")
        self.assertIn(b"connection: close", answer)

    def test_garbage_is_refused(self):
        self.assertTrue(self.raw(b"garbage\r\n\r\n").startswith(b"HTTP/1.1 400 "))
        self.assertTrue(self.raw(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20000).startswith(b"HTTP/1.1 431 "))


class Snapshots(EmulatorTest):

    def test_wire_form(self):
        made = self.insert("users", {"b": 1.5, "Zed": True, "_creationTime": 1786999999123.25, "a": {"z": 1, "Y": 2}})
        answer = self.post("/api/list_snapshot", {"tableName": "users", "format": "convex_encoded_json"})
        row = ('{"_component":"","_table":"users","_ts":%d,"Zed":true,"_creationTime":1786999999123.25,"_id":"%s",'
               '"a":{"Y":2.0,"z":1.0},"b":1.5}' % (made["ts"], made["ids"][0]))
        self.assertEqual(answer.body.decode(),
                         '{"values":[%s],"snapshot":%d,"cursor":null,"hasMore":false}' % (row, self.head()))
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_timestamps_ascend_and_a_transaction_shares_one(self):
        first = self.insert("t", {"n": 1}, {"n": 2})["ts"]
        second = self.insert("t", {"n": 3})["ts"]
        self.assertGreater(second, first)
        self.assertGreater(first, 2**53)
        rows = self.rows(tableName="t")
        self.assertEqual(sorted((row["_ts"], row["n"]) for row in rows), [(first, 1), (first, 2), (second, 3)])
        times = [row["_creationTime"] for row in rows]
        self.assertEqual(len(set(times)), 3)

    def test_paging(self):
        """One table a page, tablet order, `_id` order, an empty page at an exact multiple and for empty tables."""
        self.control("config", {"page_limit": 4})
        for table, count in (("a", 8), ("b", 3), ("c", 0), ("d", 4)):
            self.mutate({"op": "create_table", "table": table})
            if count:
                self.insert(table, *({"n": i} for i in range(count)))
        pages = self.walk()
        names = [{row["_table"] for row in page["values"]} for page in pages]
        self.assertTrue(all(len(name) <= 1 for name in names))
        self.assertEqual(sum(len(page["values"]) for page in pages), 15)
        self.assertEqual(len(pages), 3 + 1 + 1 + 2)
        tablets = {table["table"]: table["tablet"] for table in self.control("state")["tables"]}
        seen = [min(name) for name in names if name]
        order = sorted(tablets, key=lambda name: values.parse_tablet(tablets[name]))
        self.assertEqual(list(dict.fromkeys(seen)), [name for name in order if name != "c"])
        ids = [row["_id"] for row in self.rows(tableName="a")]
        self.assertEqual(ids, sorted(ids))
        cursors = [json.loads(page["cursor"]) for page in pages if page["cursor"]]
        self.assertEqual([list(cursor) for cursor in cursors], [["tablet", "id"]] * len(cursors))
        self.assertEqual(sum(cursor["id"] == MIN_ID for cursor in cursors), 3)
        self.assertTrue(all(len(cursor["tablet"]) == 22 for cursor in cursors))

    def test_a_snapshot_stays_as_it_was(self):
        self.control("config", {"page_limit": 2})
        ids = self.insert("t", *({"n": i} for i in range(5)))["ids"]
        snapshot = self.head()
        before = self.rows(tableName="t", snapshot=snapshot)
        self.mutate({"op": "delete", "table": "t", "id": ids[0]},
                    {"op": "patch", "table": "t", "id": ids[1], "doc": {"n": 77, "m": None}},
                    {"op": "replace", "table": "t", "id": ids[2], "doc": {"x": "y"}},
                    {"op": "insert", "table": "t", "doc": {"n": 99}})
        self.assertEqual(self.rows(tableName="t", snapshot=snapshot), before)
        now = {row["_id"]: row for row in self.rows(tableName="t")}
        self.assertEqual(len(now), 5)
        self.assertNotIn(ids[0], now)
        self.assertEqual((now[ids[1]]["n"], now[ids[1]]["m"]), (77, None))
        self.assertNotIn("n", now[ids[2]])
        self.mutate({"op": "drop_table", "table": "t"})
        self.assertEqual(self.rows(tableName="t", snapshot=snapshot), before)
        self.assertEqual(self.rows(tableName="t"), [])

    def test_snapshot_bounds(self):
        self.insert("t", {"n": 1})
        head = self.head()
        self.refused(self.post("/api/list_snapshot", {"snapshot": head + 1}), 400, "SnapshotTooNew")
        self.control("config", {"snapshot_max_age_ns": 10})
        self.insert("t", {"n": 1})
        self.refused(self.post("/api/list_snapshot", {"snapshot": head}), 400, "SnapshotTooOld")
        self.refused(self.post("/api/list_snapshot", {"snapshot": -1}), 500, "InternalServerError")
        self.control("config", {"snapshot_max_age_ns": 10**18, "retention_floor": head + 1})
        self.refused(self.post("/api/list_snapshot", {"snapshot": head}), 503, "InternalServerError")

    def test_bad_cursors(self):
        good = {"tablet": "AAECAwQFBgcICQoLDA0ODw", "id": "j57000820c20a1g7104gm2rc1m70ynr8"}
        for cursor in ("", "{", "[]", "{}", '{"tablet":"x","id":"y"}', json.dumps({**good, "id": "j57000820c20a1g710"}),
                       json.dumps({**good, "tablet": good["tablet"] + "A"})):
            self.refused(self.post("/api/list_snapshot", {"cursor": cursor}), 400, "InvalidListSnapshotCursor")
        self.assertEqual(self.post("/api/list_snapshot", {"cursor": json.dumps(good)}).status, 200)

    def test_get_and_post_agree_and_formats(self):
        self.insert("t", {"n": {"$integer": "AQAAAAAAAAA="}, "b": {"$bytes": "AP8="}})
        for name, expected in (("json", "1"), ("convex_clean_json", "1"), ("export_json", 1),
                               ("convex_encoded_json", {"$integer": "AQAAAAAAAAA="}),
                               ("convex_json", {"$integer": "AQAAAAAAAAA="})):
            posted = self.post("/api/list_snapshot", {"tableName": "t", "format": name}).body
            self.assertEqual(self.get(f"/api/list_snapshot?tableName=t&format={name}").body, posted)
            self.assertEqual(json.loads(posted)["values"][0]["n"], expected)
        for path in ("/api/list_snapshot?format=x", "/api/document_deltas?cursor=1&format=x", "/api/json_schemas?format=x"):
            self.refused(self.get(path), 400, "BadFormat")
        self.refused(self.post("/api/list_snapshot", {"format": "x", "snapshot": 2**62}), 400, "SnapshotTooNew")
        self.control("config", {"export_json_supported": False})
        self.refused(self.get("/api/list_snapshot?format=export_json"), 400, "BadFormat")

    def test_ids_of_two_components_may_be_equal(self):
        one = values.encode_id(10001, bytes(range(16)))
        self.insert("t", {"_id": one, "x": 1})
        self.insert("u", {"_id": one, "x": 2}, component="a/b")
        rows = {(row["_component"], row["_table"]): row["_id"] for row in self.rows()}
        self.assertEqual(rows, {("", "t"): one, ("a/b", "u"): one})

    def test_walk_misses(self):
        """The journal tells a page that the one warm iterator serves from a page that starts a new walk."""
        self.control("config", {"page_limit": 2})
        self.insert("t", *({"n": i} for i in range(5)))
        self.insert("u", {"n": 1})
        self.control("journal", method="DELETE")
        self.walk()
        self.assertEqual([entry["walk_miss"] for entry in self.control("journal")["requests"]],
                         [True] + [False] * 3)
        first = self.walk(tableName="t")[0]
        self.walk(tableName="u")
        self.control("journal", method="DELETE")
        self.post("/api/list_snapshot", {"tableName": "t", "snapshot": first["snapshot"], "cursor": first["cursor"]})
        self.assertEqual([entry["walk_miss"] for entry in self.control("journal")["requests"]], [True])

    def test_cursor_of_a_table_that_is_no_longer_selected(self):
        """Tables before the cursor's are skipped, and the next one is entered at the cursor's id."""
        self.control("config", {"page_limit": 3})
        for table in "abc":
            self.insert(table, *({"n": i} for i in range(4)))
        page = self.post("/api/list_snapshot", {}).json()
        first = page["values"][0]["_table"]
        rest = self.rows(snapshot=page["snapshot"], cursor=page["cursor"],
                         selection={"_other": "included", "": {"_other": "included", first: "excluded"}})
        self.assertNotIn(first, {row["_table"] for row in rest})
        self.assertLess(len(rest), 8 + 1)


class Selections(EmulatorTest):

    def setUp(self):
        super().setUp()
        self.insert("users", {"name": "Ada", "ssn": "1"})
        self.insert("posts", {"title": "x"})
        self.insert("entries", {"e": 1}, component="waitlist")

    def tables(self, args):
        return {(row["_component"], row["_table"]) for row in self.rows(**args)}

    EVERYTHING = {("", "users"), ("", "posts"), ("waitlist", "entries")}

    def test_rules_in_order(self):
        users = {"_other": "excluded", "": {"_other": "excluded", "users": {"_other": "included"}}}
        self.assertEqual(self.tables({}), self.EVERYTHING)
        self.assertEqual(self.tables({"selection": users, "tableName": "posts"}), {("", "users")})
        self.assertEqual(self.tables({"tableName": "posts"}), {("", "posts")})
        self.assertEqual(self.tables({"table_name": "posts"}), {("", "posts")})
        self.assertEqual(self.tables({"tableName": "entries", "component": "waitlist"}), {("waitlist", "entries")})
        self.assertEqual(self.tables({"tableName": "entries", "component": None}), set())
        self.assertEqual(self.tables({"component": "waitlist"}), {("waitlist", "entries")})
        self.assertEqual(self.tables({"component": ""}), {("", "users"), ("", "posts")})
        self.assertEqual(self.tables({"tableName": "absent"}), set())

    def test_what_does_not_parse_means_everything(self):
        for args in ({"selection": {}}, {"selection": None}, {"selection": {"_other": "yes"}}, {"tableName": 1},
                     {"tableName": "posts", "table_name": "posts"}, {"tableName": "posts", "component": 5},
                     {"component": 5}, {"component": None}, {"selection": {"_other": "excluded", "": "included"}},
                     {"selection": {"_other": "excluded", "": {"users": {"_other": "included"}}}},
                     {"selection": {"_other": "excluded", "": {"_other": "excluded", "users": "included"}}}):
            self.assertEqual(self.tables(args), self.EVERYTHING, args)
        answer = self.request("POST", "/api/list_snapshot", b'{"tableName":"posts","tableName":"users"}',
                              {**ADMIN, **JSON})
        self.assertTrue(answer.json()["hasMore"])
        self.assertEqual(self.tables({"selection": {"_other": "x"}, "tableName": "posts"}), {("", "posts")})

    def test_get_ignores_selection(self):
        answer = self.get("/api/list_snapshot?selection=%7B%22_other%22%3A%22excluded%22%7D")
        self.assertTrue(answer.json()["hasMore"])

    def test_old_servers_ignore_selection(self):
        self.control("config", {"selection_supported": False})
        users = {"_other": "excl", "": {"_other": "excl", "users": {"_other": "incl"}}}
        self.assertEqual(self.tables({"selection": users, "tableName": "posts"}), {("", "posts")})
        self.assertEqual(self.tables({"selection": users}), self.EVERYTHING)

    def test_columns(self):
        selection = {"_other": "excluded", "": {"_other": "excluded",
                     "users": {"_other": "included", "ssn": "excluded", "_creationTime": "excl"},
                     "posts": {"_other": "excluded", "_id": "included", "absent": "included"}}}
        rows = {row["_table"]: sorted(row) for row in self.rows(selection=selection)}
        self.assertEqual(rows, {"users": ["_component", "_id", "_table", "_ts", "name"],
                                "posts": ["_component", "_id", "_table", "_ts"]})

    def test_bad_names_and_excluded_ids_are_500(self):
        for args in ({"tableName": "a b"}, {"tableName": ""}, {"tableName": "a", "component": "/"},
                     {"component": "a//b"}, {"selection": {"_other": "included", "a-b": "excluded"}},
                     {"selection": {"_other": "included", "": {"_other": "included", "1": "excluded"}}},
                     {"selection": {"_other": "included", "": {"_other": "included", "u": {"_other": "excluded"}}}},
                     {"selection": {"_other": "included", "": {"_other": "included",
                                                               "u": {"_other": "included", "_id": "excluded"}}}},
                     {"selection": {"_other": "included", "": {"_other": "included",
                                                               "u": {"_other": "included", "$x": "excluded"}}}}):
            self.refused(self.post("/api/list_snapshot", args), 500, "InternalServerError")
            self.refused(self.post("/api/document_deltas", {"cursor": 1, **args}), 500, "InternalServerError")

    def test_system_tables_are_never_shown(self):
        self.assertEqual(self.tables({"tableName": "_tables"}), set())


class Deltas(EmulatorTest):

    def test_wire_form(self):
        made = self.insert("users", {"a": 1, "_creationTime": 5.5})
        start, document = made["ts"], made["ids"][0]
        changed = self.mutate({"op": "patch", "table": "users", "id": document, "doc": {"a": 2}})["ts"]
        deleted = self.mutate({"op": "delete", "table": "users", "id": document})["ts"]
        answer = self.get(f"/api/document_deltas?cursor={start}")
        self.assertEqual(answer.body.decode(), (
            '{"values":[{"_component":"","_table":"users","_ts":%d,"_deleted":false,"_creationTime":5.5,"_id":"%s","a":2.0}'
            ',{"_component":"","_table":"users","_ts":%d,"_deleted":true,"_id":"%s"}],"cursor":%d,"hasMore":false}'
            % (changed, document, deleted, document, deleted)))

    def test_cursor_rules(self):
        self.refused(self.get("/api/document_deltas"), 400, "DocumentDeltasCursorRequired")
        self.refused(self.post("/api/document_deltas", {"cursor": None}), 400, "DocumentDeltasCursorRequired")
        self.refused(self.post("/api/document_deltas", {"cursor": -1}), 500, "InternalServerError")
        self.refused(self.post("/api/document_deltas", {"cursor": "1"}), 400, "BadJsonBody")
        self.refused(self.get("/api/document_deltas?cursor=x"), 400, "BadQueryArgs")
        self.refused(self.get("/api/document_deltas?cursor=1&cursor=2"), 400, "BadQueryArgs")
        self.insert("t", {"n": 1})
        head = self.head()
        self.assertEqual(self.deltas(head), {"values": [], "cursor": head, "hasMore": False})
        self.assertEqual(self.deltas(head + 10**15), {"values": [], "cursor": head, "hasMore": False})

    def test_page_rule(self):
        """Every log row counts; a transaction is never split; `hasMore` only when a later row exists."""
        self.mutate({"op": "create_table", "table": "a"}, {"op": "create_table", "table": "b"})
        start = self.head()
        self.control("config", {"delta_limit": 4})
        stamps = [self.insert("a", *({"n": i} for i in range(3)))["ts"], self.mutate({"op": "system", "count": 2})["ts"],
                  self.insert("b", *({"n": i} for i in range(9)))["ts"], self.insert("a", {"n": 9})["ts"]]
        page = self.deltas(start)
        self.assertEqual((len(page["values"]), page["cursor"], page["hasMore"]), (3, stamps[1], True))
        page = self.deltas(page["cursor"])
        self.assertEqual((len(page["values"]), page["cursor"], page["hasMore"]), (9, stamps[2], True))
        page = self.deltas(page["cursor"])
        self.assertEqual((len(page["values"]), page["cursor"], page["hasMore"]), (1, self.head(), False))
        page = self.deltas(stamps[1], tableName="a")
        self.assertEqual((page["values"], page["hasMore"]), ([], True))
        self.control("config", {"delta_limit": 1})
        page = self.deltas(stamps[2])
        self.assertEqual((len(page["values"]), page["cursor"], page["hasMore"]), (1, stamps[3], False))

    def test_order_within_a_transaction(self):
        self.insert("a", {"n": 0})
        self.insert("b", {"n": 0})
        start = self.head()
        self.mutate(*({"op": "insert", "table": "ab"[i % 2], "doc": {"n": i}} for i in range(20)))
        rows = self.deltas(start)["values"]
        tablets = {table["table"]: values.parse_tablet(table["tablet"]) for table in self.control("state")["tables"]}
        keys = [(row["_ts"], tablets[row["_table"]], row["_id"]) for row in rows]
        self.assertEqual(keys, sorted(keys))

    def test_columns_filter_fields_only(self):
        one = self.insert("t", {"a": 1, "b": 2})["ids"][0]
        start = self.head()
        self.mutate({"op": "patch", "table": "t", "id": one, "doc": {"b": 3}})
        self.mutate({"op": "patch", "table": "t", "id": one, "doc": {"b": 3}})    # identical: no row
        self.mutate({"op": "delete", "table": "t", "id": one})
        selection = {"_other": "excluded", "": {"_other": "excluded",
                     "t": {"_other": "excluded", "_id": "included", "a": "included"}}}
        rows = self.deltas(start, selection=selection)["values"]
        self.assertEqual([{name: row[name] for name in row if name[0] != "_"} for row in rows], [{"a": 1}, {}])

    def test_insert_and_delete_show_both(self):
        start = self.head()
        one = self.insert("t", {"a": 1})["ids"][0]
        self.mutate({"op": "delete", "table": "t", "id": one})
        self.assertEqual([row["_deleted"] for row in self.all_deltas(start)], [False, True])

    def test_dropped_tables_vanish(self):
        start = self.head()
        self.insert("t", {"a": 1})
        self.insert("u", {"a": 1})
        self.mutate({"op": "drop_table", "table": "t"})
        self.assertEqual([row["_table"] for row in self.all_deltas(start)], ["u"])

    def test_retention(self):
        self.insert("t", {"n": 1})
        floor = self.head()
        self.insert("t", {"n": 1})
        self.control("config", {"retention_floor": floor})
        self.refused(self.get(f"/api/document_deltas?cursor={floor - 2}"), 400, "InvalidWindowToReadDocuments")
        self.assertEqual(len(self.deltas(floor - 1)["values"]), 2)
        self.control("config", {"retention_floor": None})
        self.assertEqual(len(self.all_deltas(0)), 2)

    def test_retention_by_age(self):
        """What is older than 14 days goes, on an idle deployment, too, but not before there is as much history."""
        day = 86400 * 10**9
        self.insert("t", {"n": 1})
        head = self.head()
        self.control("config", {"clock_offset_ns": 13 * day})
        self.assertEqual(len(self.all_deltas(0)), 1)
        newer = self.head()
        self.control("config", {"clock_offset_ns": 15 * day})
        self.assertGreater(self.head(), head + 14 * day)
        self.refused(self.get(f"/api/document_deltas?cursor={head}"), 400, "InvalidWindowToReadDocuments")
        self.assertEqual(self.deltas(newer)["values"], [])
        self.control("config", {"retention_ns": 20 * day})
        self.assertEqual(len(self.all_deltas(0)), 1)

    def test_idle_head(self):
        """The head of an idle deployment moves by itself after an hour, unless it is frozen."""
        self.insert("t", {"n": 1})
        head = self.head()
        self.assertEqual(self.head(), head)
        self.control("config", {"head_frozen": True, "clock_offset_ns": 7200 * 10**9})
        self.assertEqual(self.head(), head)
        self.control("config", {"head_frozen": False})
        self.assertGreater(self.head(), head + 3600 * 10**9)

    def test_bulk_ops(self):
        self.insert("t", *({"n": {"$integer": "AQAAAAAAAAA="}, "f": i} for i in range(10)))
        start = self.head()
        self.mutate({"op": "increment_all", "table": "t", "field": "n", "by": 2})
        self.control("mutate", {"rows_per_transaction": 3,
                                "ops": [{"op": "update_all", "table": "t", "doc": {"x": True}}]})
        rows = self.all_deltas(start)
        self.assertEqual(len({row["_ts"] for row in rows}), 1 + 4)
        self.assertEqual(rows[-1]["n"], {"$integer": "AwAAAAAAAAA="})
        documents = self.control("dump?table=t")["documents"]
        self.assertEqual([document["x"] for document in documents], [True] * 10)


class Shapes(EmulatorTest):

    def schemas(self, **args):
        query = "&".join(f"{name}={value}" for name, value in {"byComponent": "true", **args}.items())
        answer = self.get("/api/json_schemas?" + query)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def field(self, *items, value_format="convex_encoded_json"):
        """The schema of a field that holds these values, one a document."""
        self.control("reset", {})
        self.insert("t", *({"v": item} for item in items))
        return self.schemas(format=value_format)[""]["t"]["properties"]["v"]

    def test_member_order(self):
        self.insert("users", {"nick": None, "age": {"$integer": "AQAAAAAAAAA="}}, {"nick": "x"})
        answer = self.get("/api/json_schemas?deltaSchema=true&format=export_json&byComponent=true")
        self.assertEqual(answer.body.decode(), (
            '{"":{"users":{"type":"object","properties":{"_creationTime":{"type":"number"},'
            '"_id":{"$description":"Id(users)","type":"string"},"age":{"$description":"int64","type":"number"},'
            '"nick":{"anyOf":[{"type":"null"},{"type":"string"}]},"_table":{"type":"string"},'
            '"_component":{"type":"string"},"_ts":{"type":"integer"},"_deleted":{"type":"boolean"}},'
            '"additionalProperties":false,"required":["_creationTime","_id","nick"],'
            '"$schema":"http://json-schema.org/draft-07/schema#"}}}'))

    def test_arguments(self):
        for query in ("deltaSchema=1", "byComponent=True", "byComponent", "deltaSchema=true&deltaSchema=true"):
            self.refused(self.get("/api/json_schemas?" + query), 400, "BadQueryArgs")
        self.assertEqual(self.get("/api/json_schemas?delta_schema=x").body, b"{}")
        self.assertEqual(self.schemas(), {"": {}})

    def test_empty_table_and_components(self):
        self.mutate({"op": "create_table", "table": "t"}, {"op": "create_table", "component": "c", "table": "t"})
        found = self.schemas()
        self.assertEqual(sorted(found["c"]["t"]["properties"]), ["_creationTime", "_id"])
        self.assertEqual(found["c"]["t"]["required"], ["_creationTime", "_id"])
        self.assertEqual(list(self.get("/api/json_schemas").json()), ["t"])

    def test_types(self):
        one = values.encode_id(10001, bytes(16))
        foreign = values.encode_id(20001, bytes(16))
        number = {"type": "number"}
        self.assertEqual(self.field(1.5, 2), number)
        self.assertIn("anyOf", self.field(1.5, {"$float": "AAAAAAAAAIA="}))
        self.assertEqual(self.field({"$float": "AAAAAAAA+H8="}, value_format="json")["anyOf"][0], number)
        self.assertEqual(self.field({"$bytes": "AA=="}, value_format="json"),
                         {"$description": "base64 bytes", "type": "string"})
        self.assertEqual(self.field({"$bytes": "AA=="}),
                         {"type": "object", "$description": "base64 bytes", "properties": {"$bytes": {"type": "string"}}})
        self.assertEqual(self.field(one), {"$description": "Id(t)", "type": "string"})
        self.assertEqual(self.field(foreign), {"type": "string"})
        self.assertEqual(self.field(one, "hello world"), {"type": "string"})
        self.assertEqual(self.field(one, "word"),
                         {"anyOf": [{"$description": "Id(t)", "type": "string"}, {"type": "string"}]})
        self.assertEqual(self.field(one, *(f"word{i}" for i in range(20))), {"type": "string"})
        self.assertEqual(self.field([]), {"type": "array", "items": False})
        self.assertEqual(self.field([1, "a"]), {"type": "array", "items": {"anyOf": [number, {"type": "string"}]}})
        self.assertEqual(self.field({"b": 1}, {"a": 2, "b": 3})["required"], ["b"])
        self.assertEqual(self.field({"not an identifier": 1}), {})
        self.assertEqual(self.field({f"f{i}": 1 for i in range(65)}), {})
        kinds = self.field(None, True, 1, "x y", [1], {"a": 1}, {"$bytes": "AA=="}, {"$integer": "AQAAAAAAAAA="})
        order = [kind.get("$description") or kind["type"] for kind in kinds["anyOf"]]
        self.assertEqual(order, ["null", "int64", "number", "boolean", "string", "base64 bytes", "object", "array"])

    def declared(self, document_type):
        return {"tables": [{"tableName": "t", "indexes": [], "documentType": document_type}], "schemaValidation": False}

    def test_one_odd_table_blocks_the_call(self):
        self.insert("t", {"odd name": 1})
        self.refused(self.get("/api/json_schemas"), 400, "NoSchemaForExport")
        self.control("config", {"schema": {"tables": [], "schemaValidation": False}})
        self.refused(self.get("/api/json_schemas"), 400, "NoTableDefinitionForExport")
        self.control("config", {"schema": self.declared({"type": "any"})})
        self.assertEqual(sorted(self.schemas()[""]["t"]["properties"]), ["_creationTime", "_id"])
        part = {"type": "object", "value": {"a": {"fieldType": {"type": "bigint"}, "optional": True}}}
        self.control("config", {"schema": self.declared({"type": "union", "value": [part, part]})})
        self.refused(self.get("/api/json_schemas"), 400, "UnsupportedSchemaForExport")
        self.control("config", {"schema": self.declared(part)})
        self.assertEqual(sorted(self.schemas()[""]["t"]["properties"]), ["_creationTime", "_id", "a"])

    def test_column_names(self):
        self.insert("users", {"age": 1, "Nick": "x"})
        self.mutate({"op": "create_table", "table": "empty"})
        self.insert("odd", {"odd name": 1})
        self.insert("entries", {"x": 1}, component="waitlist")
        self.mutate({"op": "create_table", "component": "bare", "table": "t"}, )
        self.mutate({"op": "drop_table", "component": "bare", "table": "t"})
        found = self.get("/api/get_table_column_names").json()["byComponent"]
        self.assertEqual(sorted(found), ["", "waitlist"])
        root = {table["name"]: table["columns"] for table in found[""]}
        self.assertEqual(root, {"users": ["Nick", "_creationTime", "_id", "age"], "empty": ["_creationTime", "_id"],
                                "odd": ["_creationTime", "_id"]})
        self.assertEqual([list(table) for table in found[""]], [["name", "columns"]] * 3)
        self.control("config", {"column_names_fallback": ["users"]})
        self.assertNotIn(b"Nick", self.get("/api/get_table_column_names").body)

    def test_shapes_follow_the_data(self):
        one = self.insert("t", {"a": 1}, {"a": 1, "b": 2})["ids"][1]
        self.assertIn("b", self.schemas()[""]["t"]["properties"])
        self.mutate({"op": "delete", "table": "t", "id": one})
        self.assertNotIn("b", self.schemas()[""]["t"]["properties"])


class Bench(EmulatorTest):

    def test_formula_and_pages(self):
        self.control("seed", {"seed": "bench:3000"})
        rows = self.rows(tableName="bench")
        self.assertEqual(len(rows), 3000)
        self.assertEqual(sum(row["amount"] for row in rows), sum((i % 100003) / 8 for i in range(3000)))
        self.assertEqual([row["name"] for row in rows], [f"Item {i}" for i in range(3000)])
        self.assertEqual(sum("note" in row for row in rows), 750)
        self.assertEqual([row["_id"] for row in rows], sorted(row["_id"] for row in rows))
        self.assertTrue(all(values.decode_id(row["parent"]) for row in rows))

    def test_texts_equal_the_codec(self):
        for is_wide in (False, True):
            base = synthetic.Base(10001, 500, is_wide, 1)
            for value_format in (values.CLEAN, values.ENCODED, values.EXPORT):
                self.assertEqual(base.field_texts(40, 60, None, value_format),
                                 [values.encode_fields(base.document(i), value_format) for i in range(40, 60)])

    def test_positions(self):
        base = synthetic.Base(10001, 5000, False, 1)
        for i in (0, 1, 999, 4999):
            self.assertEqual(base.index_of(base.internal(i)), i)
            self.assertEqual(base.position_after(base.internal(i)), min(i + 1, 5000))
        self.assertEqual(base.position_after(bytes(16)), 0)
        self.assertEqual(base.position_after(b"\xff" * 16), 5000)

    def test_it_can_be_written(self):
        self.control("seed", {"seed": "bench:2000:wide"})
        before = self.head()
        rows = self.rows(tableName="bench_wide")
        made = self.mutate({"op": "delete", "table": "bench_wide", "id": rows[5]["_id"]},
                           {"op": "patch", "table": "bench_wide", "id": rows[6]["_id"], "doc": {"name": "new"}},
                           {"op": "insert", "table": "bench_wide", "doc": {"name": "more"}})
        now = {row["_id"]: row for row in self.rows(tableName="bench_wide")}
        self.assertEqual(len(now), 2000)
        self.assertNotIn(rows[5]["_id"], now)
        self.assertEqual(now[rows[6]["_id"]]["name"], "new")
        self.assertIn(made["ids"][0], now)
        self.assertEqual(self.rows(tableName="bench_wide", snapshot=before), rows)
        self.assertEqual(len(self.deltas(before)["values"]), 3)

    def test_the_log_begins_after_it(self):
        self.control("seed", {"seed": "bench:10"})
        self.refused(self.get("/api/document_deltas?cursor=0"), 400, "InvalidWindowToReadDocuments")

    def test_columns(self):
        self.control("seed", {"seed": "bench:10"})
        selection = {"_other": "excluded", "": {"_other": "excluded", "bench": {
            "_other": "excluded", "_id": "included", "note": "included"}}}
        rows = self.rows(selection=selection)
        self.assertEqual([row.get("note") for row in rows], [f"note {i}" if i % 4 == 0 else None for i in range(10)])
        self.assertEqual(sorted(rows[1]), ["_component", "_id", "_table", "_ts"])


def backup_zip():
    """A small backup with a component, both typings and an empty table."""
    ids = [values.encode_id(10005, bytes([i]) * 16) for i in range(3)]
    users = "".join('{"_creationTime":1750000000000.5,"_id":"%s","n":%d,"f":1.0}\n' % (one, i)
                    for i, one in enumerate(ids))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("_tables/documents.jsonl", '{"id":10005.0,"name":"users"}\n{"id":10006.0,"name":"empty"}\n')
        archive.writestr("users/documents.jsonl", users)
        archive.writestr("users/generated_schema.jsonl", '"uniform"\n')
        archive.writestr("empty/documents.jsonl", "")
        archive.writestr("_components/billing/_components/ledger/plain/documents.jsonl", '{"n":1}\n')
    return ids, data.getvalue()


class CommandLine(unittest.TestCase):

    def start(self, *arguments, **options):
        process = subprocess.Popen([sys.executable, os.path.join(HERE, "convex_emulator.py"), *arguments],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdin.close)
        line = process.stdout.readline()
        self.assertRegex(line, r"^listening on https?://127\.0\.0\.1:\d+$")
        return process, int(line.rsplit(":", 1)[1])

    def get(self, port, path, context=None):
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        sock = context.wrap_socket(raw, server_hostname="localhost") if context else raw
        with raw, sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nconnection: close\r\nauthorization: "
                         f"{ADMIN['Authorization']}\r\n\r\n".encode())
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        return answer.split(b"\r\n\r\n", 1)[1]

    def test_starts_with_the_demo_and_ends_with_sigterm(self):
        with tempfile.TemporaryDirectory() as folder:
            process, port = self.start("--port-file", os.path.join(folder, "port"), "--random-seed", "1")
            with open(os.path.join(folder, "port")) as file:
                self.assertEqual(int(file.read()), port)
        found = json.loads(self.get(port, "/api/get_table_column_names"))["byComponent"]
        self.assertEqual(sorted(found), ["", "billing", "billing/ledger"])
        self.assertEqual({table["name"] for table in found[""]}, {"users", "channels", "messages", "drafts"})
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(10), 0)

    def test_ends_with_its_standard_input(self):
        process, _ = self.start("--exit-with-stdin", "--seed", "none")
        process.stdin.close()
        self.assertEqual(process.wait(10), 0)

    def test_loads_a_backup(self):
        ids, data = backup_zip()
        with tempfile.NamedTemporaryFile(suffix=".zip") as file:
            file.write(data)
            file.flush()
            _, port = self.start("--backup", file.name, "--backup-component", "old")
        rows = json.loads(self.get(port, "/api/list_snapshot?tableName=users&component=old&format=export_json"))["values"]
        self.assertEqual([(row["_id"], row["n"], type(row["f"]), row["_creationTime"]) for row in rows],
                         [(one, i, float, 1750000000000.5) for i, one in enumerate(ids)])
        plain = self.get(port, "/api/list_snapshot?component=old/billing/ledger&format=export_json")
        self.assertIn(b'"n":1.0', plain)
        self.assertEqual(json.loads(self.get(port, "/_emulator/dump?table=empty&component=old")), {"documents": []})

    def test_tls(self):
        with tempfile.TemporaryDirectory() as folder:
            key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
            made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert,
                                   "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
                                  capture_output=True)
            if made.returncode:
                self.skipTest("openssl cannot make a certificate")
            _, port = self.start("--tls-cert", cert, "--tls-key", key)
            context = ssl.create_default_context(cafile=cert)
        self.assertEqual(self.get(port, "/instance_name", context), b"happy-otter-123")

    def test_the_bench_table_is_ready_at_once(self):
        _, port = self.start("--seed", "bench:1000000")
        state = json.loads(self.get(port, "/_emulator/state"))
        self.assertEqual(state["tables"][0]["documents"], 1_000_000)


class Control(EmulatorTest):

    def test_journal(self):
        self.post("/api/list_snapshot", {"tableName": "t"})
        self.get("/api/nothing?x=y")
        first, second = self.control("journal")["requests"]
        self.assertEqual(list(first), ["n", "method", "path", "query", "headers", "body", "status", "bytes", "fault",
                                       "walk_miss", "snapshot", "connection", "commits",
                                       "documents_read", "bytes_read"])
        self.assertEqual((first["n"], first["body"], first["status"]), (1, {"tableName": "t"}, 200))
        self.assertEqual(first["headers"]["authorization"], ADMIN["Authorization"])
        self.assertEqual(first["snapshot"], self.head())
        self.assertEqual((second["path"], second["query"], second["status"], second["body"]),
                         ("/api/nothing", "x=y", 404, None))
        self.assertEqual(len(self.control("journal?path=/api/nothing")["requests"]), 1)
        self.control("journal", method="DELETE")
        self.assertEqual(self.control("journal"), {"requests": []})

    def test_journal_is_bounded(self):
        self.emulator.journal.limit = 3
        for _ in range(5):
            self.get("/version")
        self.assertEqual([entry["n"] for entry in self.control("journal")["requests"]], [3, 4, 5])

    def test_answers_are_one_line(self):
        self.assertEqual(self.get("/_emulator/state").body.count(b"\n"), 1)

    def test_mistakes_are_400(self):
        for path, body in (("mutate", {"ops": [{"op": "x"}]}), ("mutate", {}), ("config", {"nonsense": 1}),
                           ("faults", {"action": "x"}), ("seed", {"seed": "x"}),
                           ("mutate", {"ops": [{"op": "delete", "table": "t", "id": "x"}]})):
            answer = self.post("/_emulator/" + path, body, {})
            self.assertEqual(answer.status, 400)
            self.assertIn("error", answer.json())

    def test_a_refused_mutation_changes_nothing(self):
        before = self.head()
        answer = self.post("/_emulator/mutate", {"ops": [{"op": "insert", "table": "t", "doc": {"a": 1}},
                                                         {"op": "delete", "table": "t", "id": "x"}]}, {})
        self.assertEqual(answer.status, 400)
        self.assertEqual((self.head(), self.rows()), (before, []))

    def test_reset_and_seed(self):
        self.control("seed", {"seed": "demo"})
        before = self.head()
        self.assertTrue(self.rows())
        self.control("reset", {})
        self.assertEqual(self.rows(), [])
        self.assertGreater(self.head(), before)

    def test_dump_at_a_timestamp(self):
        first = self.insert("t", {"n": 1})["ts"]
        self.insert("t", {"n": 2})
        self.assertEqual([row["n"] for row in self.control(f"dump?table=t&ts={first}")["documents"]], [1])

    def test_missing_routes(self):
        self.control("config", {"routes_missing": ["/api/get_table_column_names"]})
        answer = self.get("/api/get_table_column_names")
        self.assertEqual((answer.status, answer.body), (404, b""))

    def test_clock(self):
        self.control("config", {"clock_offset_ns": 10**18})
        date = self.get("/version").headers["date"]
        self.assertGreater(int(date.split()[3]), 2050)

    def test_requests_of_many_connections_are_all_journalled(self):
        def one():
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
                sock.sendall(b"GET /version HTTP/1.1\r\nconnection: close\r\n\r\n")
                while sock.recv(4096):
                    pass
        for _ in range(20):
            one()
        entries = wait_until(lambda: self.control("journal")["requests"])
        self.assertEqual(len({entry["connection"] for entry in entries}), 20)


if __name__ == "__main__":
    unittest.main()
