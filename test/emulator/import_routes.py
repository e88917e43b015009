"""The routes of snapshot import: one-shot, multipart upload, confirm, cancel, and the query of the state.

Convex: crates/local_backend/src/{snapshot_import,dashboard}.rs,
npm-packages/system-udfs/convex/_system/cli/queryImport.ts.
"""

import base64
import json
import struct

import arguments
import functions
import values
from auth import IMPORT_BACKUPS, VIEW_BACKUPS, VIEW_DATA
from errors import bad_request
from imports import IMPORTS_TABLE_NUMBER, MODES
from server import Response

FORMATS = ("csv", "jsonLines", "jsonArray", "zip")


class SnapshotImportRoutes:
    def __init__(self, emulator):
        self.emulator = emulator
        self.imports = emulator.imports

    def table(self):
        return {
            "/api/import": {"POST": self.one_shot},
            "/api/import/start_upload": {"POST": self.start_upload},
            "/api/import/upload_part": {"POST": self.upload_part},
            "/api/import/finish_upload": {"POST": self.finish_upload},
            "/api/perform_import": {"POST": self.perform},
            "/api/cancel_import": {"POST": self.cancel},
            "/api/query": {"POST": self.query},
            "/api/query_at_ts": {"POST": self.query_at_ts},
            "/api/check_admin_key": {"GET": self.check_admin_key},
        }

    def one_shot(self, request):
        identity = self.emulator.keys.identify(request)
        args = arguments.query_args(request, ("tableName", "componentPath", "format", "mode"))
        _check_enums(args, arguments.bad_query)
        identity.require(IMPORT_BACKUPS)
        work = self.imports.start(*_check_target(args), request.body)
        self.imports.wait(work)
        if work.state["state"] == "waiting_for_confirmation":
            self.imports.confirm(work.id)
            self.imports.wait(work)
        if work.state["state"] != "completed":
            raise bad_request("ImportFailed", work.state.get("error_message", "Import failed"))
        return Response(200, [b'{"numWritten":%d}' % work.state["num_rows_written"]])

    def start_upload(self, request):
        self.emulator.keys.identify(request).require(IMPORT_BACKUPS)
        with self.imports.changed:
            token = self.emulator.store.random_bytes().hex()
            self.imports.uploads[token] = bytearray()
        return Response(200, [b'{"uploadToken":"%s"}' % token.encode()])

    def upload_part(self, request):
        """Parts stand in the order of their arrival, whatever their number."""
        identity = self.emulator.keys.identify(request)
        args = arguments.query_args(request, ("uploadToken", "partNumber"))
        number = arguments.query_integer(args, "partNumber")
        if number is None or "uploadToken" not in args:
            raise arguments.bad_query("missing field `partNumber` or `uploadToken`")
        if not 0 <= number < 1 << 16:
            raise arguments.bad_query("partNumber: number too large to fit in target type")
        identity.require(IMPORT_BACKUPS)
        with self.imports.changed:
            self._upload(args["uploadToken"]).extend(request.body)
        return Response(200, [b'""'])

    def _upload(self, token):
        upload = self.imports.uploads.get(token)
        if upload is None:
            raise bad_request("ImportFailed", "unknown upload token")
        return upload

    def finish_upload(self, request):
        identity = self.emulator.keys.identify(request)
        body = arguments.json_object(request)
        args = body.get("import")
        parts = body.get("partTokens")
        if not isinstance(args, dict) or not isinstance(parts, list):
            raise arguments.bad_body("missing field `import` or `partTokens`")
        for name in ("tableName", "componentPath", "format", "mode"):
            arguments.body_string(args, name)
        _check_enums(args, arguments.bad_body)
        target = _check_target(args)
        identity.require(IMPORT_BACKUPS)
        with self.imports.changed:
            token = arguments.body_string(body, "uploadToken")
            data = bytes(self._upload(token))
            del self.imports.uploads[token]
            work = self.imports.start(*target, data)
        return Response(200, [b'{"importId":"%s"}' % work.id.encode()])

    def perform(self, request):
        self.imports.confirm(self._import_id(request))
        return Response()

    def cancel(self, request):
        self.imports.cancel(self._import_id(request))
        return Response()

    def _import_id(self, request):
        identity = self.emulator.keys.identify(request)
        import_id = arguments.body_string(arguments.json_object(request), "importId")
        if import_id is None:
            raise arguments.bad_body("missing field `importId`")
        if values.decode_id(import_id) is None:
            raise bad_request("InvalidImport", f"invalid import id {import_id}")
        identity.require(IMPORT_BACKUPS)
        return import_id

    # ------------------------------------------------------------ what a key may do

    def check_admin_key(self, request):
        """No list of operations means that there is nothing which the key may not do."""
        identity = self.emulator.keys.identify(request)
        identity.require_admin()
        text = json.dumps({"allowedOps": identity.op_names(), "isReadOnly": identity.is_read_only(), "success": True},
                          separators=(",", ":"))
        return Response(200, [text.encode()])

    # ------------------------------------------------------------ the state, as a query

    def query(self, request):
        """Functions: those of `_system/cli/queryImport`, and that of functions.py. Their errors are no HTTP errors."""
        body = arguments.json_object(request)
        path = arguments.body_string(body, "path")
        if path is None or "args" not in body:
            raise arguments.bad_body("missing field `path` or `args`")
        identity = self.emulator.keys.identify(request)
        return self.run_query(identity, path, body["args"], body.get("format"))

    def query_at_ts(self, request):
        """The same at a timestamp, which is forgotten some time after later commits."""
        body = arguments.json_object(request)
        path, ts = arguments.body_string(body, "path"), arguments.body_string(body, "ts")
        if path is None or ts is None or "args" not in body:
            raise arguments.bad_body("missing field `path`, `ts` or `args`")
        identity = self.emulator.keys.identify(request)
        (ts,) = struct.unpack("<Q", base64.b64decode(ts))
        self.emulator.store.check_readable(ts)
        if path != "_system/frontend/listById":
            return self.run_query(identity, path, body["args"], body.get("format"))
        return self._function(identity, lambda found: functions.list_by_id(self.emulator.store, body["args"], ts, found), body.get("format"))

    def run_query(self, identity, path, args, value_format):
        args = args[0] if isinstance(args, list) and args else args
        module, _, function = path.partition(":")
        if module.removesuffix(".js") == "_system/frontend/paginatedTableDocuments" and function in ("", "default"):
            return self._documents(identity, args, value_format)
        if module.removesuffix(".js") != "_system/cli/queryImport" or function not in ("", "default", "list"):
            return self._function_error(f"Could not find public function for '{path}'. Did you forget to run `npx "
                                        "convex dev` or `npx convex deploy`?")
        if identity.ops is None or identity.is_acting:
            return self._function_error("Operation query not permitted")
        if VIEW_BACKUPS not in identity.ops:
            return self._function_error(f"You do not have permission to perform this operation ({VIEW_BACKUPS}).")
        if function == "list":
            return self._list(args, value_format)
        import_id = args.get("importId") if isinstance(args, dict) else None
        if (values.decode_id(import_id) or (None,))[0] != IMPORTS_TABLE_NUMBER:
            return self._function_error("Value does not match validator.\nPath: "
                                        ".importId\nValidator: v.id(\"_snapshot_imports\")")
        found = arguments.value_format(value_format)
        with self.imports.changed:
            work = self.imports.imports.get(import_id)
            return self._function_value(None if work is None else work.document(), found)

    def _documents(self, identity, args, value_format):
        return self._function(identity, lambda found: functions.paginated_documents(self.emulator.store, args, found), value_format)

    def _function(self, identity, run, value_format):
        if identity.ops is None or identity.is_acting:
            return self._function_error("Operation query not permitted")
        if VIEW_DATA not in identity.ops:
            return self._function_error(f"You do not have permission to perform this operation ({VIEW_DATA}).")
        found = arguments.value_format(value_format)
        try:
            page = run(found)
        except functions.FunctionError as error:
            return self._function_error(str(error))
        return Response(200, [b'{"status":"success","value":', page.encode(), b"}"])

    def _list(self, args, value_format):
        """The twenty newest imports, which a client looks through before it starts another."""
        if args:
            name = next(iter(args), "") if isinstance(args, dict) else ""
            return self._function_error(f"Object contains extra field `{name}` that is not in the validator.")
        found = arguments.value_format(value_format)
        with self.imports.changed:
            newest = list(self.imports.imports.values())[:-21:-1]
            return self._function_value([work.document() for work in newest], found)

    def _function_value(self, value, value_format):
        return Response(200, [b'{"status":"success","value":', values.encode_value(value, value_format).encode(), b"}"])

    def _function_error(self, message):
        request_id = self.emulator.store.random_bytes().hex()[:16]
        text = json.dumps({"status": "error", "errorMessage": f"[Request ID: {request_id}] Server Error\n{message}"},
                          separators=(",", ":"))
        return Response(200, [text.encode()])


def _check_enums(args, bad):
    """Types and words, before the permission is looked at."""
    if args.get("format") not in FORMATS:
        raise bad(f"unknown format, expected one of {', '.join(FORMATS)}")
    if args.get("mode", "requireEmpty") not in MODES:
        raise bad(f"unknown mode, expected one of {', '.join(MODES)}")


def _check_target(args):
    """(format, table, mode, component) of an import."""
    table, file_format = args.get("tableName"), args["format"]
    if table is not None and not values.is_identifier(table):
        raise bad_request("ImportInvalidName", f"invalid table name {table}")
    if file_format == "zip" and table is not None:
        raise bad_request("InvalidName", "ZIP import cannot have table name")
    if file_format != "zip" and table is None:
        raise bad_request("InvalidName", f"{file_format} import requires table name")
    component = args.get("componentPath") or ""
    if not values.is_component_path(component):
        raise bad_request("InvalidComponentPath", f"invalid component path {component}")
    return file_format, table, args.get("mode", "requireEmpty"), component
