"""Snapshot import, what `npx convex import` does: uploads, the state machine, the worker, and its query.

    uploaded -> waiting_for_confirmation -> in_progress -> completed
       |                  |                     |
       +------------------+---------------------+--------> failed

One worker thread handles one import at a time. All modes but `append` fill hidden tablets in batches and put
them in place in one transaction.

Convex: crates/local_backend/src/snapshot_import.rs, crates/application/src/snapshot_import,
crates/model/src/snapshot_imports, npm-packages/system-udfs/convex/_system/cli/queryImport.ts.
"""

import csv
import io
import json
import re
import sys
import threading
import traceback

import arguments
import backup
import tables
import values
from auth import IMPORT_BACKUPS, VIEW_BACKUPS
from errors import ApiError, bad_request
from server import Response

FORMATS = ("csv", "jsonLines", "jsonArray", "zip")
MODES = {"append": "Append", "replace": "Replace", "replaceAll": "ReplaceAll", "requireEmpty": "RequireEmpty"}
STORED_FORMATS = {"csv": "csv", "jsonLines": "jsonl", "jsonArray": "json_array"}

IMPORTS_TABLE_NUMBER = 528       # a system table
MAX_JSON_ARRAY = 16 << 20
BATCH_BYTES = 8 << 20
MAX_AGE_MS = 7 * 86400 * 1000.0

_FLOAT = re.compile(r"[+-]?(?:inf|infinity|nan|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\Z", re.IGNORECASE)


class ImportFailure(Exception):
    """Ends an import; the text is what `error_message` says."""


class Import:
    """One import and its rows; fields below `state` change under the store's lock."""

    def __init__(self, import_id, made_ms, file_format, table, mode, component, data):
        self.id = import_id
        self.made_ms = made_ms
        self.format = file_format
        self.table = table
        self.mode = mode
        self.component = component
        self.data = data
        self.state = {"state": "uploaded"}
        self.checkpoints = None
        self.parsed = None

    def document(self):
        """The row of the system table, as `_system/cli/queryImport` shows it."""
        stored = {"format": "zip"} if self.format == "zip" else {
            "format": STORED_FORMATS[self.format], "table": self.table}
        return values.canonical({
            "_id": self.id, "_creationTime": self.made_ms, "state": self.state, "format": stored,
            "mode": MODES[self.mode], "component_path": self.component or None,
            "fq_object_key": f"emulator/snapshot_imports/{self.id}", "member_id": None,
            "requestor": {"type": "snapshotImport"},
            "checkpoints": None if self.checkpoints is None else [dict(each) for each in self.checkpoints]})


class Table:
    """The rows of one table of an import; `decode` makes a document of a parsed row."""

    def __init__(self, component, name, rows, is_uniform, number=None):
        self.component = component
        self.name = name
        self.rows = rows
        self.is_uniform = is_uniform
        self.number = number      # the table number that the import asks for
        self.tablet = None        # where it is written

    def has_ids(self):
        return all(isinstance(row, dict) and "_id" in row for row in self.rows)

    def first_number(self):
        """Ids of the first row decide the table number."""
        first = self.rows[0] if self.rows else None
        decoded = values.decode_id(first.get("_id")) if isinstance(first, dict) else None
        return decoded and decoded[0]


# ---------------------------------------------------------------- files

def _check_bom(data):
    if data.startswith(b"\xef\xbb\xbf"):
        raise ImportFailure("UTF-8 BOM is not supported. Please save your file without BOM.")


def _parse_lines(data):
    _check_bom(data)
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [backup.parse_line(line, number) for number, line in enumerate(lines, 1)]


def _parse_array(data):
    if len(data) > MAX_JSON_ARRAY:
        raise ImportFailure(f"Import is too large for JSON ({len(data)} bytes > maximum 16 MiB). Consider converting "
                            "data to JSONLines")
    _check_bom(data)
    try:
        rows = values.parse_json(data)
    except ValueError as error:
        raise ImportFailure(f"Not valid JSON: {error}") from None
    if not isinstance(rows, list):
        raise ImportFailure("Not a JSON array")
    return rows


def _csv_cell(text):
    if not _FLOAT.match(text):
        return text
    number = float(text)
    return number if number - number == 0 else None


def _parse_csv(data, optional):
    """Header row, then rows; an empty cell of a field that the schema calls optional is left out."""
    try:
        records = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImportFailure(f"Failed to parse CSV row 0: {error}") from None
    names = [name.strip(" ") for name in records[0]] if records else []
    for name in names:
        if not values.is_field_name(name):
            raise ImportFailure(f"CSV header {json.dumps(name)} isn't a valid field name")
    rows = []
    for number, record in enumerate((record for record in records[1:] if record), 1):
        if len(record) != len(names):
            raise ImportFailure(f"CSV row {number} doesn't have all of the fields in the header")
        rows.append({name: _csv_cell(cell) for name, cell in zip(names, record)
                     if cell != "" or name not in optional})
    return rows


def _parse_zip(data, component):
    try:
        archive = backup.Archive(io.BytesIO(data))
    except backup.BadBackup:
        raise ImportFailure("invalid zip file") from None
    found = {}
    for path, name, member in archive.tables:
        path = "/".join(part for part in (component, path) if part)
        if not values.is_identifier(name):
            raise ImportFailure(f"table name '{name}' invalid")
        rows = [backup.parse_line(line, number) for number, line in archive.lines(member)]
        found[path, name] = Table(path, name, rows, archive.is_uniform(member))
    for (path, name), number in archive.numbers.items():
        path = "/".join(part for part in (component, path) if part)
        found.setdefault((path, name), Table(path, name, [], False)).number = number
    return [found[key] for key in sorted(found)]


class Importer:
    """The worker's two jobs: read a file, write its rows."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings

    def parse(self, work):
        """The tables of an import; ImportFailure when the file is not what it says."""
        if work.format == "zip":
            return _parse_zip(work.data, work.component)
        if work.format == "jsonLines":
            rows = _parse_lines(work.data)
        elif work.format == "jsonArray":
            rows = _parse_array(work.data)
        else:
            rows = _parse_csv(work.data, self._optional_fields(work))
        return [Table(work.component, work.table, rows, False)]

    def _optional_fields(self, work):
        schema = self.settings.schema if work.component == "" else None
        for table in schema["tables"] if schema else ():
            kind = table.get("documentType") or {}
            if table["tableName"] == work.table and kind.get("type") == "object":
                return {name for name, field in kind["value"].items() if field["optional"]}
        return ()

    # ------------------------------------------------------------ before confirmation

    def summary(self, work):
        """(message to confirm, needs confirmation, checkpoints)"""
        counts = {(table.component, table.name): (len(table.rows), not table.has_ids()) for table in work.parsed}
        if work.mode == "replaceAll":
            for tablet in self.store.active_tablets():
                counts.setdefault((tablet.component, tablet.name), (0, False))
        changes = []
        for (component, name), (added, lacks_id) in sorted(counts.items()):
            tablet = self.store.table(component, name)
            existing = tablet.count if tablet else 0
            if work.mode == "requireEmpty" and existing:
                raise ImportFailure(f"Table {name} already exists. Please choose a new table name or use "
                                    "replace/append modes.")
            deleted = existing if work.mode in ("replace", "replaceAll") else 0
            changes.append({
                "component_path": component or None, "display_table_name": name, "tablet_id": None,
                "total_num_rows_to_write": added, "num_rows_written": 0, "existing_rows_in_table": existing,
                "existing_rows_to_delete": deleted, "is_missing_id_field": lacks_id})
        lines = _render(changes)
        if lines:
            lines.insert(0, "Import change summary:")
        lines.append("Once the import has started, it will run in the background.\nInterrupting `npx convex import` "
                     "will not cancel it.")
        return "\n".join(lines), any(change["existing_rows_to_delete"] for change in changes), changes

    # ------------------------------------------------------------ after it

    def prepare(self, work):
        """Gives every table its number and the tablet that takes its rows."""
        self._assign_numbers(work)
        for table in work.parsed:
            old = self.store.table(table.component, table.name)
            if work.mode == "requireEmpty" and old and old.count:
                raise ImportFailure(f"Table {table.name} already exists. Please choose a new table name or use "
                                    "replace/append modes.")
            if work.mode == "append" and old is not None:
                table.tablet = old
                if table.number not in (None, old.number):
                    raise ImportFailure(f"table {table.name} wants table number {table.number} but was already "
                                        f"assigned {old.number}")
            else:
                self._hidden(work, table, old)

    def _hidden(self, work, table, old):
        tx = self.store.transaction()
        table.tablet = tx.new_tablet(table.component, table.name, table.number)
        tables.copy_indexes(old, table.tablet)
        tx.hide(table.tablet)
        tx.system_rows += 1
        tx.commit()
        for checkpoint in work.checkpoints:
            if _place(checkpoint) == (table.component, table.name):
                checkpoint["tablet_id"] = table.tablet.text

    def _assign_numbers(self, work):
        taken = {}
        for table in work.parsed:
            table.number = table.number or table.first_number()
            if table.number is not None:
                other = taken.setdefault((table.component, table.number), table.name)
                if other != table.name:
                    raise ImportFailure(f"conflict between `{other}` and `{table.name}` with number {table.number}")
        for table in work.parsed:
            old = self.store.table(table.component, table.name)
            if table.number is None and old and (table.component, old.number) not in taken:
                table.number = old.number
                taken[table.component, old.number] = table.name
        if work.mode == "replaceAll":
            return
        imported = {(table.component, table.name) for table in work.parsed}
        for tablet in self.store.active_tablets():
            other = taken.get((tablet.component, tablet.number))
            if other is not None and (tablet.component, tablet.name) not in imported:
                raise ImportFailure(f"New table `{other}` has IDs that conflict with existing table `{tablet.name}`. "
                                    "To delete all existing tables, import with `npx convex import --replace-all`.")

    def batches(self, table):
        """Lists of documents, each small enough for one transaction."""
        batch, size = [], 0
        for number, row in enumerate(table.rows, 1):
            document = backup.decode_row(row, table.is_uniform, number)
            size += values.value_size(document)
            batch.append(document)
            if size > BATCH_BYTES or len(batch) > self.settings.import_batch_rows:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def insert(self, table, documents):
        tablet = table.tablet
        ids = [document["_id"] for document in documents if "_id" in document]
        if len(set(map(repr, ids))) < len(ids):
            raise ImportFailure(f"Objects in table \"{table.name}\" have duplicate _id fields")
        tx = self.store.transaction()
        for document in documents:
            tx.insert(tablet, document, self._internal(tablet, document), self._creation_time(document))
        tx.commit()

    def _internal(self, tablet, document):
        if "_id" not in document:
            return None
        decoded = values.decode_id(document["_id"])
        if decoded is None:
            raise ImportFailure(f"invalid _id '{document['_id']}'")
        if decoded[0] != tablet.number:
            raise ImportFailure(f"_id {document['_id']} cannot be imported into '{tablet.name}' because it came from "
                                "a different deployment and conflict with preexisting tables in this deployment.")
        if decoded[1] in tablet.revisions or tablet.revision(decoded[1]) is not None:
            raise ImportFailure(f"Document {document['_id']} already exists")
        return decoded[1]

    def _creation_time(self, document):
        time = document.get("_creationTime")
        if time is not None and (type(time) is not float or not 0 < time < float("inf")):
            raise ImportFailure("_creationTime must be a positive number of milliseconds")
        return time

    def finish(self, work):
        """The one transaction that makes hidden tablets visible; (timestamp, rows written)."""
        tx = self.store.transaction()
        imported = {(table.component, table.name) for table in work.parsed}
        if work.mode == "replaceAll":
            self._clear_others(tx, imported)
        for table in work.parsed:
            if table.tablet.state != "active":
                tx.activate(table.tablet)
        tx.system_rows += 2    # the import's own row and the audit log
        return tx.commit(), sum(len(table.rows) for table in work.parsed)

    def _clear_others(self, tx, imported):
        """Other tables go; those that an active schema names are emptied instead."""
        schema = self.settings.schema
        declared = {("", table["tableName"]) for table in schema["tables"]} if schema else set()
        for tablet in self.store.active_tablets():
            place = tablet.component, tablet.name
            if place in imported:
                continue
            if place in declared:
                empty = tx.new_tablet(*place)
                tables.copy_indexes(tablet, empty)
                tx.activate(empty)
            else:
                tx.drop(tablet)


def _place(checkpoint):
    return checkpoint["component_path"] or "", checkpoint["display_table_name"]


def _render(changes):
    """The table of the confirmation message, one a component."""
    lines = []
    for component in dict.fromkeys(_place(change)[0] for change in changes):
        if component:
            lines.append(f"Component {component}")
        rows = [("table", "create", "delete")]
        rows += [(change["display_table_name"], f"{change['total_num_rows_to_write']:,}",
                  f"{change['existing_rows_to_delete']:,} of {change['existing_rows_in_table']:,}")
                 for change in changes if _place(change)[0] == component]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        for i, row in enumerate(rows):
            lines.append("".join(f"{cell:{width}} | " for cell, width in zip(row, widths)).rstrip(" "))
            if i == 0:
                lines.append("-" * (sum(widths) + 8))
    return lines


class Imports:
    """All imports, their uploads, and the thread that works on them."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings
        self.importer = Importer(emulator)
        self.changed = threading.Condition(self.store.lock)
        self.uploads = {}
        self.imports = {}
        self.worker = None

    def clear(self):
        with self.changed:
            for work in self.imports.values():
                if work.state["state"] not in ("completed", "failed"):
                    work.state = {"state": "failed", "error_message": "Import canceled"}
            self.imports.clear()
            self.uploads.clear()
            self.changed.notify_all()

    def start(self, file_format, table, mode, component, data):
        with self.changed:
            import_id = values.encode_id(IMPORTS_TABLE_NUMBER, self.store.random_bytes())
            work = Import(import_id, self.store.now_ns() / 1e6, file_format, table, mode, component, data)
            self.imports[import_id] = work
            self._touch()
            if self.worker is None:
                self.worker = threading.Thread(target=self._work, daemon=True)
                self.worker.start()
            return work

    def get(self, import_id):
        work = self.imports.get(import_id)
        if work is None:
            raise ApiError(404, "ImportNotFound", f"import {import_id} not found")
        return work

    def confirm(self, import_id):
        """A no-op in every state but one."""
        with self.changed:
            work = self.get(import_id)
            if work.state["state"] == "waiting_for_confirmation":
                self._set(work, {"state": "in_progress", "progress_message": "Importing", "checkpoint_messages": []})

    def cancel(self, import_id):
        with self.changed:
            work = self.get(import_id)
            if work.state["state"] in ("completed", "failed"):
                raise bad_request("CannotCancelImport",
                                  f"Cannot cancel an import that has {work.state['state']}")
            self._set(work, {"state": "failed", "error_message": "Import canceled"})

    def wait(self, work):
        """Until the worker has nothing to do with it."""
        self.emulator.wait_until(lambda: work.state["state"] not in ("uploaded", "in_progress"))

    def _set(self, work, state):
        work.state = state
        if state["state"] in ("completed", "failed"):
            work.data = b""
            work.parsed = None
        self._touch()

    def _touch(self):
        """A change of an import's row is a write to a system table."""
        tx = self.store.transaction()
        tx.system_rows = 1
        tx.commit()
        self.changed.notify_all()

    # ------------------------------------------------------------ the worker's thread

    def _work(self):
        while True:
            with self.changed:
                work = self._next()
                while work is None:
                    self.changed.wait()
                    work = self._next()
            try:
                self._step(work)
            except (ImportFailure, backup.BadBackup) as failure:
                self._fail(work, str(failure))
            except ApiError as failure:
                self._fail(work, failure.message)
            except Exception:    # a bug here must not end the worker
                traceback.print_exc(file=sys.stderr)
                self._fail(work, "internal error")

    def _next(self):
        for state in ("uploaded", "in_progress"):
            for work in self.imports.values():
                if work.state["state"] == state and (state != self.settings.import_hold or state == "in_progress"):
                    return work
        return None

    def _fail(self, work, message):
        with self.changed:
            if work.state["state"] not in ("completed", "failed"):
                self._set(work, {"state": "failed", "error_message": f"Hit an error while importing:\n{message}"})

    def _step(self, work):
        if self.store.now_ns() / 1e6 - work.made_ms > MAX_AGE_MS:
            raise ImportFailure("Import took too long. Try again or contact Convex.")
        if work.state["state"] == "uploaded":
            parsed = self.importer.parse(work)
            with self.changed:
                if work.state["state"] != "uploaded":
                    return
                work.parsed = parsed
                message, needs_confirmation, work.checkpoints = self.importer.summary(work)
                self._set(work, {"state": "waiting_for_confirmation", "message_to_confirm": message,
                                 "require_manual_confirmation": needs_confirmation})
        else:
            self._run(work)

    def _run(self, work):
        """Writes batch by batch; a cancelled import leaves what it has written."""
        with self.changed:
            parsed = work.parsed
            if parsed is None:
                return
            self.importer.prepare(work)
        for table in parsed:
            done = 0
            for batch in self.importer.batches(table):
                with self.changed:
                    if not self._goes_on(work):
                        return
                    self.importer.insert(table, batch)
                    done += len(batch)
                    self._progress(work, table, f"Importing \"{table.name}\" ({done:,} documents)", done, False)
                    while self.settings.import_hold == "in_progress" and self._goes_on(work):
                        self.changed.wait()
            with self.changed:
                if not self._goes_on(work):
                    return
                self._progress(work, table, f"Imported \"{table.name}\" ({done:,} documents)", done, True)
        with self.changed:
            while self.settings.import_hold == "in_progress" and self._goes_on(work):
                self.changed.wait()
            if self._goes_on(work):
                ts, rows = self.importer.finish(work)
                self._set(work, {"state": "completed", "timestamp": ts, "num_rows_written": rows})

    def _goes_on(self, work):
        return work.state["state"] == "in_progress"

    def _progress(self, work, table, message, done, is_checkpoint):
        messages = work.state["checkpoint_messages"] + ([message] if is_checkpoint else [])
        work.state = {"state": "in_progress", "progress_message": message, "checkpoint_messages": messages}
        for checkpoint in work.checkpoints:
            if _place(checkpoint) == (table.component, table.name):
                checkpoint["num_rows_written"] = done
        self._touch()


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

    # ------------------------------------------------------------ the state, as a query

    def query(self, request):
        """The one function that exists is `_system/cli/queryImport`; a function's error is no HTTP error."""
        body = arguments.json_object(request)
        path = arguments.body_string(body, "path")
        if path is None or "args" not in body:
            raise arguments.bad_body("missing field `path` or `args`")
        identity = self.emulator.keys.identify(request)
        args = body["args"][0] if isinstance(body["args"], list) and body["args"] else body["args"]
        name = (path or "").removesuffix(":default")
        if name not in ("_system/cli/queryImport", "_system/cli/queryImport.js") or identity.ops is None:
            return self._function_error(f"Could not find public function for '{path}'. Did you forget to run `npx "
                                        "convex dev` or `npx convex deploy`?")
        if VIEW_BACKUPS not in identity.ops:
            return self._function_error(f"You do not have permission to perform this operation (missing "
                                        f"{VIEW_BACKUPS})")
        import_id = args.get("importId") if isinstance(args, dict) else None
        if (values.decode_id(import_id) or (None,))[0] != IMPORTS_TABLE_NUMBER:
            return self._function_error("ArgumentValidationError: Value does not match validator.\nPath: "
                                        ".importId\nValidator: v.id(\"_snapshot_imports\")")
        found = arguments.value_format(body.get("format"))
        with self.imports.changed:
            work = self.imports.imports.get(import_id)
            text = "null" if work is None else values.encode_value(work.document(), found)
        return Response(200, [b'{"status":"success","value":', text.encode(), b"}"])

    def _function_error(self, message):
        text = json.dumps({"status": "error", "errorMessage": message}, separators=(",", ":"))
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
