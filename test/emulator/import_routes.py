"""The routes of snapshot import: one-shot, multipart upload, confirm, cancel; functions tell the state.

Convex: crates/local_backend/src/snapshot_import.rs.
"""

import arguments
import values
from auth import IMPORT_BACKUPS
from errors import bad_request
from imports import MODES
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
