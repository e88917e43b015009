"""The streaming export routes and the helpers that need no key.

Convex: crates/local_backend/src/streaming_export.rs, crates/local_backend/src/router.rs.
"""

import base64
import json
import struct

import arguments
import pages
import selection
import shapes
from auth import VIEW_DATA
from errors import bad_request, forbidden, internal_error
from server import Response


def text(line):
    return Response(200, [line.encode()], content_type="text/plain; charset=utf-8")


def json_response(value):
    return Response(200, [json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()])


class ExportRoutes:
    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings

    def table(self):
        return {
            "/": {"GET": self.root},
            "/version": {"GET": self.version},
            "/instance_version": {"GET": self.version},
            "/instance_name": {"GET": self.instance_name},
            "/api/v1/openapi.json": {"GET": self.openapi},
            "/api/query_ts": {"POST": self.query_ts},
            "/api/test_streaming_export_connection": {"GET": self.test_connection},
            "/api/json_schemas": {"GET": self.json_schemas},
            "/api/get_table_column_names": {"GET": self.column_names},
            "/api/list_snapshot": {"GET": self.list_snapshot_get, "POST": self.list_snapshot_post},
            "/api/document_deltas": {"GET": self.document_deltas_get, "POST": self.document_deltas_post},
        }

    # ------------------------------------------------------------ helpers without a key

    def root(self, request):
        return text("This Convex deployment is running. See https://docs.convex.dev/.")

    def version(self, request):
        return text(self.settings.version)

    def instance_name(self, request):
        return text(self.settings.instance_name)

    def openapi(self, request):
        """The routes below /api/v1: none of them exist here, data sync neither."""
        return json_response({"openapi": "3.1.0", "info": {"title": "Convex Deployment API", "version": "1"},
                              "paths": {}})

    def query_ts(self, request):
        with self.store.lock:
            ts = self.store.head()
        return json_response({"ts": base64.b64encode(struct.pack("<Q", ts)).decode()})

    # ------------------------------------------------------------ export

    def _gate(self, identity):
        """The plan is checked before the permission."""
        if not self.settings.streaming_export:
            raise forbidden("StreamingExportNotEnabled", "Streaming export is not available on your current "
                            "subscription. See https://www.convex.dev/plans to upgrade.")
        identity.require(VIEW_DATA)

    def _format(self, name):
        return arguments.value_format(name, self.settings.export_json_supported)

    def test_connection(self, request):
        self._gate(self.emulator.keys.identify(request))
        return Response(200, [b"null"])

    def json_schemas(self, request):
        args = arguments.query_args(request, ("deltaSchema", "format", "byComponent"))
        has_deltas = arguments.query_boolean(args, "deltaSchema")
        by_component = arguments.query_boolean(args, "byComponent")
        self._gate(self.emulator.keys.identify(request))
        if self.settings.json_schemas_error:
            raise bad_request(self.settings.json_schemas_error,
                              "There is no active schema, which is needed for streaming export.")
        with self.store.lock:
            return json_response(shapes.json_schemas(self.store, self.settings,
                                                     self._format(args.get("format")),
                                                     by_component, has_deltas))

    def column_names(self, request):
        self._gate(self.emulator.keys.identify(request))
        with self.store.lock:
            found = shapes.column_names(self.store, self.settings)
        return json_response({"byComponent": found})

    def list_snapshot_get(self, request):
        args = arguments.query_args(request, ("snapshot", "cursor", "format"))
        snapshot = arguments.query_integer(args, "snapshot")
        identity = self.emulator.keys.identify(request)
        return self._list_snapshot(request, identity, args, snapshot, is_get=True)

    def list_snapshot_post(self, request):
        identity = self.emulator.keys.identify(request)
        args = arguments.json_object(request)
        arguments.once(args, ("snapshot", "cursor", "format"))
        snapshot = arguments.body_integer(args, "snapshot")
        arguments.body_string(args, "cursor")
        arguments.body_string(args, "format")
        return self._list_snapshot(request, identity, args, snapshot, is_get=False)

    def _list_snapshot(self, request, identity, args, snapshot, is_get):
        self._gate(identity)
        if snapshot is not None and snapshot < 0:
            raise internal_error()
        cursor = args.get("cursor")
        if cursor is not None:
            cursor = pages.parse_cursor(cursor)
        chosen = self._selection(request, args, is_get)
        identity.require_plain("list_snapshot")
        known_format = self._known_format(args)
        parts, ts, miss = self.emulator.pages.snapshot_page(snapshot, cursor, chosen, known_format)
        request.entry.walk_miss = miss
        request.entry.snapshot = ts
        self._format(args.get("format"))
        return Response(200, parts)

    def document_deltas_get(self, request):
        args = arguments.query_args(request, ("cursor", "format"))
        cursor = arguments.query_integer(args, "cursor")
        identity = self.emulator.keys.identify(request)
        return self._document_deltas(request, identity, args, cursor, is_get=True)

    def document_deltas_post(self, request):
        identity = self.emulator.keys.identify(request)
        args = arguments.json_object(request)
        arguments.once(args, ("cursor", "format"))
        cursor = arguments.body_integer(args, "cursor")
        arguments.body_string(args, "format")
        return self._document_deltas(request, identity, args, cursor, is_get=False)

    def _document_deltas(self, request, identity, args, cursor, is_get):
        self._gate(identity)
        if cursor is None:
            raise bad_request("DocumentDeltasCursorRequired", "/api/document_deltas requires a cursor")
        if cursor < 0:
            raise internal_error()
        chosen = self._selection(request, args, is_get)
        identity.require_plain("document_deltas")
        parts = self.emulator.pages.delta_page(cursor, chosen, self._known_format(args))
        self._format(args.get("format"))
        return Response(200, parts)

    def _known_format(self, args):
        """An unknown format shows only after the page was read; until then any will do."""
        return arguments.values.FORMATS.get(args.get("format"), 0)

    def _selection(self, request, args, is_get):
        if request.ignore_filter:
            return selection.EVERYTHING
        return selection.from_arguments(args, self.settings.selection_supported and not is_get)
