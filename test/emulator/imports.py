"""Snapshot imports, what `npx convex import` starts: their states, and the worker that carries them out.

    uploaded -> waiting_for_confirmation -> in_progress -> completed
       |                  |                     |
       +------------------+---------------------+--------> failed

One worker thread handles one import at a time. All modes but `append` fill hidden tablets in batches and put
them in place in one transaction.

Convex: crates/application/src/snapshot_import, crates/model/src/snapshot_imports.
"""

import sys
import threading
import traceback

import backup
import import_files
import tables
import values
from errors import ApiError, bad_request
from import_files import ImportFailure
from tablets import ACTIVE

MODES = {"append": "Append", "replace": "Replace", "replaceAll": "ReplaceAll", "requireEmpty": "RequireEmpty"}
STORED_FORMATS = {"csv": "csv", "jsonLines": "jsonl", "jsonArray": "json_array"}

IMPORTS_TABLE_NUMBER = 523       # a system table
BATCH_BYTES = 8 << 20
MAX_AGE_MS = 7 * 86400 * 1000.0


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


class Importer:
    """The worker's two jobs: read a file, write its rows."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings

    def parse(self, work):
        return import_files.parse(work, self._optional_fields(work))

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
            if table.tablet.state != ACTIVE:
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
