"""The routes that run queries, and two helpers of the dashboard: what a key may do, which indexes are declared.

A function that fails is no HTTP error: status 200 (or what `function_error_status` says) and `"status":"error"`.
The header's syntax, the body and the path are looked at before the key is; `format` only when the function has run.

Convex: crates/local_backend/src/{public_api,dashboard,parse,args_structs}.rs, crates/application/src/redaction.rs.
"""

import base64
import json
import os
import struct

import arguments
import auth
import components
import functions
import system_functions
import values
from convex_values import without_proto
from errors import ApiError, internal_error
from function_errors import FunctionError
from server import Response
from tablets import Revision

BODY_LIMIT = (16 << 20) + 2000
_DONE = {"done": "done", "backfilling": "in_progress", "backfilled": "done"}    # state -> as get_indexes tells it


class FunctionRoutes:
    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings

    def table(self):
        return {
            "/api/query": {"POST": self.query, "GET": self.query_by_get},
            "/api/query_at_ts": {"POST": self.query_at_ts},
            "/api/query_batch": {"POST": self.query_batch},
            "/api/function": {"POST": self.function},
            "/api/check_admin_key": {"GET": self.check_admin_key},
            "/api/get_indexes": {"GET": self.get_indexes},
        }

    # ------------------------------------------------------------ queries

    def query(self, request):
        identify = self.emulator.keys.identify_later(request)
        call = Call(arguments.json_object(request, BODY_LIMIT), request)
        return self._run(call, call.path(), identify(), self._head)

    def query_by_get(self, request):
        """Arguments cannot be read out of a query string, whatever they are."""
        raise arguments.bad_query("invalid type: string, expected args")

    def query_at_ts(self, request):
        identify = self.emulator.keys.identify_later(request)
        call = Call(arguments.json_object(request, BODY_LIMIT), request, "ts")
        if not isinstance(call.body.get("ts"), str):
            raise arguments.bad_body("missing field `ts`, expected a string")
        path, identity = call.path(), identify()
        ts = _parse_ts(call.body["ts"])
        return self._run(call, path, identity, lambda: self._readable(ts))

    def query_batch(self, request):
        identify = self.emulator.keys.identify_later(request)
        queries = arguments.json_object(request, BODY_LIMIT).get("queries")
        if not isinstance(queries, list) or not all(isinstance(each, dict) for each in queries):
            raise arguments.bad_body("missing field `queries`, expected a sequence")
        calls = [Call(each, request) for each in queries]
        with self.store.lock:
            ts = self.store.head()
        identity = identify()
        results = []
        for call in calls:
            call.format(self.settings)    # before this one runs
            results.append(b"".join(self._run(call, call.path(), identity, lambda: ts).parts))
        return Response(200, [b'{"results":[', b",".join(results), b"]}"])

    def function(self, request):
        """Functions of users in any component; there are none, and system functions are not among them."""
        identify = self.emulator.keys.identify_later(request)
        call = Call(arguments.json_object(request, BODY_LIMIT), request, "componentPath")
        component = arguments.body_string(call.body, "componentPath") or ""
        identity = identify()
        identity.require_admin()
        if not values.is_component_path(component):
            raise arguments.bad_request("InvalidComponentPath", f"Invalid component path {component}")
        path = functions.shown(call.path())
        with self.store.lock:
            if component not in self.store.components:
                raise internal_error()
        place = f" in '{component}'" if component else ""
        return self._error(call, FunctionError(f"Could not find function for '{path}'{place}. Did you forget to run `npx "
                                               "convex dev`?"))

    def _head(self):
        return self.store.head()

    def _readable(self, ts):
        """A timestamp that is neither ahead nor behind the versions that are kept."""
        store = self.store
        if ts > store.head():
            raise internal_error()
        floor = store.floor()
        if not store.versions.is_readable(ts) or (floor is not None and ts < floor):
            raise ApiError(503, "InternalServerError", internal_error().message)
        return ts

    def _run(self, call, path, identity, ts_of):
        try:
            with self.store.lock:
                value = functions.run(self.emulator, identity, path, call, ts_of)
                return self._success(value, call.format(self.settings))
        except FunctionError as error:
            return self._error(call, error)

    def _success(self, value, value_format):
        return Response(200, [b'{"status":"success","value":', render(value, value_format).encode(), self._log_lines(),
                              b"}"])

    def _error(self, call, error):
        value_format = call.format(self.settings)
        text = f"[Request ID: {call.request_id}] Server Error"
        if not self.settings.redact_errors:
            text += f"\n{error.text}"
        data = "" if error.data is None else f',"errorData":{values.encode_value(error.data, value_format)}'
        return Response(self.settings.function_error_status, [
            b'{"status":"error","errorMessage":', json.dumps(text, ensure_ascii=False).encode(), data.encode(),
            self._log_lines(), b"}"])

    def _log_lines(self):
        """Left out when empty."""
        lines = [] if self.settings.redact_errors else self.settings.log_lines
        return b',"logLines":' + json.dumps(lines, ensure_ascii=False).encode() if lines else b""

    def run_query(self, identity, path, args, value_format):
        """For who follows a query: as the route answers, whatever goes wrong."""
        call = Call({"path": path, "args": args, "format": value_format})
        try:
            return self._run(call, call.path(), identity, self._head)
        except ApiError as error:
            return self._error(call, FunctionError(error.message))

    # ------------------------------------------------------------ helpers

    def check_admin_key(self, request):
        """No list of operations means that there is nothing which the key may not do."""
        identity = self.emulator.keys.identify(request)
        identity.require_admin()
        text = json.dumps({"allowedOps": identity.op_names(), "isReadOnly": identity.is_read_only(), "success": True},
                          separators=(",", ":"))
        return Response(200, [text.encode()])

    def get_indexes(self, request):
        """Declared indexes of one component, usable or not; those of an unknown one are none."""
        self.emulator.keys.identify(request).require(auth.VIEW_DATA)
        component_id = arguments.query_args(request, ("componentId",)).get("componentId")
        if component_id is not None and values.decode_id(component_id) is None:
            raise internal_error()
        with self.store.lock:
            path = "" if component_id is None else components.path_of(self.store, component_id) or None
            declaration = self.emulator.declarations.at(self.store.head())
            found = [{"table": index.table, "name": index.name, "fields": system_functions.index_fields(index),
                      "backfill": {"state": _DONE[index.state]}, "staged": index.is_staged}
                     for index in declaration.indexes(path) if index.state in _DONE]
        return Response(200, [json.dumps({"indexes": found}, ensure_ascii=False, separators=(",", ":")).encode()])


class Call:
    """The body of a request for one function; members that are not its own are ignored."""

    def __init__(self, body, request=None, *more):
        arguments.once(body, ("path", "args", "format", *more))
        if arguments.body_string(body, "path") is None or "args" not in body:
            raise arguments.bad_body("missing field `path` or `args`")
        arguments.body_string(body, "format")
        self.body = body
        self.args = body["args"]
        self.entry = request.entry if request else None
        self.ignores_filter = request is not None and request.ignore_filter
        headers = request.headers if request else {}
        self.request_id = headers.get("convex-request-id") or os.urandom(8).hex()
        self.client = headers.get("convex-client")

    def path(self):
        return functions.parse_path(self.body["path"])

    def format(self, settings):
        """Of the result alone; the arguments are always encoded."""
        name = self.body.get("format") or auth.default_format(self.client)
        return arguments.value_format(name, settings.export_json_supported)


def _parse_ts(text):
    """Eight bytes of a timestamp; nonsense is taken for a fault of the server's own."""
    try:
        ts, = struct.unpack("<Q", base64.b64decode(text, validate=True))
    except (ValueError, struct.error):
        raise internal_error() from None
    if ts > values.INT64_MAX:
        raise internal_error()
    return ts


def render(value, value_format):
    """JSON text of what a function answers, members in byte order; documents have been through JavaScript."""
    if type(value) is Revision:
        text = "{" + value.fields_text(value_format) + "}"
        return values.encode_value(without_proto(value.doc), value_format) if '"__proto__"' in text else text
    if type(value) is dict:
        return "{" + ",".join(f"{values.quote(name)}:{render(value[name], value_format)}" for name in sorted(value)) + "}"
    if type(value) is list:
        return "[" + ",".join([render(item, value_format) for item in value]) + "]"
    return values.encode_value(value, value_format)
