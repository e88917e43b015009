"""The streaming import routes: airbyte messages, fivetran rows, hidden indexes, clears. Root component only.

A request is one transaction until a limit of transactions is hit; then what stands so far is committed and
the row goes into a new one. On any other error the open transaction is lost and earlier ones stay. `committer.py`
says when each of them commits, and which of two at a time fails.

Convex: crates/local_backend/src/streaming_import.rs, crates/application/src/airbyte_import.rs,
crates/model/src/{airbyte_import,fivetran_import}.
"""

import datetime

import arguments
import tables
import values
from auth import IMPORT_BACKUPS
from errors import ApiError, bad_request, internal_error
from server import Response
from store import TransactionFull
from tablets import MISSING, field_at, index_key

AIRBYTE_LIMIT = 20 << 20
CDC_PREFIX = tables.PREFIX + "ab_cdc"
CDC_DELETED = tables.PREFIX + "ab_cdc_deleted_at"
SAME_NAME_ATTEMPTS = 3

DELETED_PATH = ("fivetran", "deleted")
SYNCED_PATH = ("fivetran", "synced")

OK = Response    # an empty body


class ImportRoutes:
    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.settings = emulator.settings
        self.committer = emulator.committer

    def table(self):
        prefix = "/api/streaming_import/"
        return {
            prefix + "import_airbyte_records": {"POST": self.import_airbyte_records},
            prefix + "apply_fivetran_operations": {"POST": self.apply_fivetran_operations},
            prefix + "get_schema": {"GET": self.get_schema},
            prefix + "replace_tables": {"POST": self.replace_tables},
            prefix + "clear_tables": {"PUT": self.clear_tables},
            prefix + "fivetran_truncate_table": {"POST": self.fivetran_truncate_table},
            prefix + "fivetran_create_table": {"POST": self.fivetran_create_table},
            prefix + "add_primary_key_indexes": {"PUT": self.add_primary_key_indexes},
            prefix + "primary_key_indexes_ready": {"GET": self.primary_key_indexes_ready},
        }

    def _args(self, request, limit=arguments.JSON_LIMIT, check=None):
        """The body of a permitted request; `check` is what parsing its types refuses."""
        identity = self.emulator.keys.identify(request)
        body = arguments.json_body(request, limit)
        body = check(body)
        identity.require(IMPORT_BACKUPS)
        return identity, body

    # ------------------------------------------------------------ schema, clears, indexes

    def get_schema(self, request):
        self.emulator.keys.identify(request).require(IMPORT_BACKUPS)
        with self.store.lock:
            text = self.emulator.declarations.at(self.store.head()).schema_text("") or "null"
        return Response(200, [text.encode()])

    def replace_tables(self, request):
        """Refused by everyone; only a wrong key is refused first."""
        self.emulator.keys.identify(request)
        names = _object(arguments.json_body(request)).get("tableNames")
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise arguments.bad_body("tableNames: expected a map of strings")
        raise bad_request("OverwriteNotSupported",
                          "Overwrite sync mode is not supported. Please use a different sync mode.")

    def clear_tables(self, request):
        _, names = self._args(request, check=lambda body: _strings(_object(body), "tableNames"))
        with self.store.lock:
            ts = tables.clear(self.store, [tables.valid_table_name(name) for name in names])
        request.entry.add_commit(ts)
        return OK()

    def add_primary_key_indexes(self, request):
        identity, indexes = self._args(request, check=_parse_indexes)
        wanted = []
        for table, paths in sorted(indexes.items()):
            try:
                fields = _key_fields(paths)
            except (ValueError, ApiError):
                raise bad_request("InvalidPrimaryKey", "Invalid primary key: identifiers must start with a "
                                  f"letter and can only contain letters, digits and underscores {paths}.") from None
            wanted.append((tables.valid_table_name(table), tables.AIRBYTE_KEY, fields))
        identity.require_plain("add_index")
        self._add_indexes(request, wanted)
        return OK()

    def _add_indexes(self, request, wanted):
        def work(tx):
            tables.add_indexes(tx, wanted)
            return True
        self.committer.run(request.entry, work, "add_system_indexes")

    def primary_key_indexes_ready(self, request):
        _, names = self._args(request, check=lambda body: _strings(_object(body), "tables"))
        with self.store.lock:
            found = []
            for name in sorted(set(names)):
                index = tables.root_index(self.store, tables.valid_table_name(name), tables.AIRBYTE_KEY)
                if index is None:
                    raise bad_request("MissingIndex", f"Missing index: {name}.{tables.AIRBYTE_KEY}")
                found.append(index)
            ready = [tables.is_ready(self.store, index, counts_poll=True) for index in found]
        return Response(200, [b'{"indexesReady":true}' if all(ready) else b'{"indexesReady":false}'])

    # ------------------------------------------------------------ airbyte

    def import_airbyte_records(self, request):
        _, (streams, messages) = self._args(request, AIRBYTE_LIMIT, _parse_airbyte)
        records = [_airbyte_record(message) for message in messages]
        keys = {}
        for name in sorted(streams):
            paths = streams[name].get("primaryKey")
            table = tables.valid_table_name(name)
            if paths is not None and not paths:
                raise bad_request("EmptyPrimaryKey", "Primary keys cannot be empty")
            try:
                keys[table] = None if paths is None else _key_fields(paths)
            except ValueError:
                raise internal_error() from None
        self.committer.run_rows(request.entry, records, lambda tx, record: self._apply_record(tx, record, keys),
                                "app_private_import_airbyte", "airbyte_write_page")
        return OK()

    def _apply_record(self, tx, record, keys):
        table, is_deleted, fields = record
        if table not in keys:
            raise bad_request("MissingStream", f"Missing stream for table {table}")
        if keys[table] is None:
            tx.insert(tx.table("", table, create=True), fields)
            return
        wanted = {}
        for path in keys[table]:
            value = field_at(fields, path)
            if value is MISSING:
                raise bad_request("MissingPrimaryKeyValue",
                                  f"Missing value for primary key field: {'.'.join(path)}.")
            wanted[path] = index_key(value)
        tablet = tx.table("", table)
        index = self._usable_index(tablet, table, tables.AIRBYTE_KEY)
        internal, before = self._at_most_one(tx, tablet, index, wanted)
        if before is None:
            tx.insert(tablet, fields)
        elif is_deleted:
            tx.delete(tablet, internal)
        else:
            tx.replace(tablet, internal, before, fields)

    def _usable_index(self, tablet, table, name):
        index = tablet.indexes.get(name) if tablet else None
        if index is None:
            raise bad_request("IndexNotFoundError", f"Index {table}.{name} not found.")
        if not index.is_ready:
            raise bad_request("IndexBackfillingError", f"Index {table}.{name} is currently backfilling and not "
                              "available to query yet.")
        return index

    def _at_most_one(self, tx, tablet, index, wanted):
        """(internal id, document) with this key, or (None, None); two of them are an internal error."""
        _check_range(index, wanted)
        prefix = tuple(wanted[path] for path in index.fields[:len(wanted)])
        found = tx.find(tablet, index, prefix)
        document = tx.get(tablet, found[0]) if found else None
        tx.count_range(tablet, index, prefix)
        if document is None:
            return None, None
        if len(found) > 1:
            raise internal_error()
        return found[0], document

    # ------------------------------------------------------------ fivetran

    def apply_fivetran_operations(self, request):
        _, rows = self._args(request, check=_parse_fivetran)
        self.committer.run_rows(request.entry, rows, self._apply_row, "app_fivetran_import", "fivetran_write_page")
        return OK()

    def _apply_row(self, tx, row):
        table, operation, fields = row
        if not values.is_identifier(table):
            raise internal_error()
        tx.reads_all_indexes = True    # the list of them is searched for the one of this table
        tablet = tx.table("", table)
        index = tablet.indexes.get(tables.FIVETRAN_KEY) if tablet else None
        if index is None:
            raise bad_request("MissingFivetranPrimaryKeyIndex", f"The `{tables.FIVETRAN_KEY}` index on the "
                              f"`{table}` table is missing.")
        wanted = {}
        for path in index.fields:
            value = False if path == DELETED_PATH else field_at(fields, path)
            if value is MISSING:
                raise bad_request("MissingValueForFivetranPrimaryKeyIndex", f"Missing value for field "
                                  f"{'.'.join(path)} of primary key index {table}.{tables.FIVETRAN_KEY}.")
            wanted[path] = index_key(value)
        index = self._usable_index(tablet, table, tables.FIVETRAN_KEY)
        internal, before = self._at_most_one(tx, tablet, index, wanted)
        _OPERATIONS[operation](tx, tablet, internal, before, fields)

    def fivetran_create_table(self, request):
        identity, definition = self._args(request, check=_parse_definition)
        table, indexes = _check_definition(definition)
        identity.require_plain("add_index")
        self._add_indexes(request, [(table, name, fields) for name, fields in indexes])
        with self.store.lock:
            if tables.root_index(self.store, table, tables.FIVETRAN_KEY) is None:
                raise bad_request("MissingIndex", f"Missing index: {table}.{tables.FIVETRAN_KEY}")
            made = [tables.root_index(self.store, table, name) for name, _ in indexes]
        self.emulator.wait_until(lambda: all([tables.is_ready(self.store, index, counts_poll=True)
                                              for index in made]))
        return OK()

    def fivetran_truncate_table(self, request):
        _, (name, before_ms, kind) = self._args(request, check=_parse_truncate)
        table = tables.valid_table_name(name)
        if before_ms is None and kind == "HardDelete":
            with self.store.lock:
                request.entry.add_commit(tables.clear(self.store, [table]))
        else:
            self._truncate(request, table, before_ms, kind)
        return OK()

    def _truncate(self, request, table, before_ms, kind):
        """Every transaction looks anew for what is left."""
        done = set()

        def work(tx):
            tx.reads_all_indexes = True
            tablet = tx.table("", table)
            if tablet is None:
                return True
            has_soft_delete = self._check_synced_index(tablet, table)

            def is_doomed(document):
                return _is_truncated(document, before_ms, has_soft_delete)
            tx.scan(tablet, is_doomed)
            first = len(done)
            for internal, revision in list(tablet.live()):
                if internal in done or not is_doomed(revision.doc):
                    continue
                try:
                    _truncate_row(tx, tablet, internal, kind)
                except TransactionFull:
                    if len(done) == first:
                        raise
                    return False
                done.add(internal)
            return True
        self.committer.run(request.entry, work, "app_fivetran_truncate", "app_fivetran_truncate")

    def _check_synced_index(self, tablet, table):
        """Whether the index tells rows that are deleted softly from others."""
        index = tablet.indexes.get(tables.FIVETRAN_SYNCED)
        if index is None:
            raise bad_request("MissingFivetranSyncedIndex", f"The Fivetran synchronization index on the `{table}` "
                              "table is missing. Something went wrong with the Fivetran sync.")
        if index.fields not in ((SYNCED_PATH,), (DELETED_PATH, SYNCED_PATH)):
            raise bad_request("WrongFieldsInFivetranSyncedIndex", f"The Fivetran synchronization index on the "
                              f"`{table}` has the wrong fields.")
        return len(index.fields) == 2


def _truncate_row(tx, tablet, internal, kind):
    document = tx.get(tablet, internal)
    if kind == "HardDelete":
        tx.delete(tablet, internal)
    else:
        metadata = document.get("fivetran")
        metadata = metadata if type(metadata) is dict else {}
        tx.replace(tablet, internal, document, {**document, "fivetran": {**metadata, "deleted": True}})


# ---------------------------------------------------------------- rows

def _upsert(tx, tablet, internal, before, fields):
    if before is None:
        tx.insert(tablet, fields)
    else:
        tx.replace(tablet, internal, before, fields)


def _update(tx, tablet, internal, before, fields):
    if before is None:
        raise ApiError(404, "FivetranMissingUpdatedRow", "Fivetran is trying to update a row that doesn’t exist "
                       "in the Convex destination.")
    merged = {**before, **fields}
    if type(before.get("fivetran")) is dict and type(fields.get("fivetran")) is dict:
        merged["fivetran"] = {**before["fivetran"], **fields["fivetran"]}
    tx.replace(tablet, internal, before, merged)


def _hard_delete(tx, tablet, internal, before, fields):
    if before is not None:
        tx.delete(tablet, internal)


_OPERATIONS = {"Upsert": _upsert, "Update": _update, "HardDelete": _hard_delete}


def _is_truncated(document, before_ms, has_soft_delete):
    """An index range: values of other types do not compare as floats."""
    if has_soft_delete and field_at(document, DELETED_PATH) is not False:
        return False
    if before_ms is None:
        return True
    synced = field_at(document, SYNCED_PATH)
    if type(synced) is float:
        return synced < before_ms
    return synced is MISSING or synced is None or type(synced) is int    # these sort below every float


def _airbyte_record(message):
    """(table, is deleted, fields): names made valid, CDC fields taken out."""
    table = tables.valid_table_name(message["tableName"])
    if not isinstance(message["data"], dict):
        raise internal_error()
    data = _valid_json(message["data"])
    values.check_value(data)
    is_deleted = data.get(CDC_DELETED) is not None
    return table, is_deleted, {name: value for name, value in data.items() if not name.startswith(CDC_PREFIX)}


def _valid_json(value):
    if isinstance(value, dict):
        made = {}
        for name, item in value.items():
            made[_free_name(name, value)] = _valid_json(item)
        return made
    if isinstance(value, list):
        return [_valid_json(item) for item in value]
    if type(value) is int:
        return float(value)
    return value


def _free_name(name, siblings):
    """A changed name must not be that of a sibling; it is prefixed again, a few times."""
    made = tables.valid_field_name(name)
    is_modified = made != name
    for _ in range(SAME_NAME_ATTEMPTS):
        if is_modified != (made in siblings):
            return made
        made, is_modified = tables.PREFIX + made, True
    raise internal_error()


def _check_range(index, wanted):
    """The key that was sent must use the fields of the index from the first on."""
    for path in wanted:
        if path not in index.fields:
            raise bad_request("FieldNotInIndex", f"The index range included a comparison with {'.'.join(path)}, but "
                              "the index doesn't index this field.")
    if set(index.fields[:len(wanted)]) != set(wanted):
        raise bad_request("InvalidIndexRange", "Tried to query an index but the query didn't use the index fields "
                          "in order.")


# ---------------------------------------------------------------- bodies

def _object(body):
    if not isinstance(body, dict):
        raise arguments.bad_body("expected an object")
    return body


def _strings(body, name):
    items = body.get(name)
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise arguments.bad_body(f"{name}: expected a list of strings")
    return items


def _is_paths(value):
    return isinstance(value, list) and all(
        isinstance(path, list) and all(isinstance(name, str) for name in path) for path in value)


def _key_fields(paths):
    fields = tuple(tables.check_index_path(path) for path in paths)
    tables.check_index_fields(fields)
    return fields


def _parse_indexes(body):
    indexes = _object(body).get("indexes")
    if not isinstance(indexes, dict) or not all(map(_is_paths, indexes.values())):
        raise arguments.bad_body("indexes: expected a map of lists of field paths")
    return indexes


def _parse_airbyte(body):
    streams, messages = _object(body).get("tables"), body.get("messages")
    if not isinstance(streams, dict) or not isinstance(messages, list):
        raise arguments.bad_body("expected `tables` and `messages`")
    for stream in streams.values():
        if not isinstance(stream, dict) or "jsonSchema" not in stream:
            raise arguments.bad_body("missing field `jsonSchema`")
        if stream.get("primaryKey") is not None and not _is_paths(stream["primaryKey"]):
            raise arguments.bad_body("primaryKey: expected a list of field paths")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("tableName"), str):
            raise arguments.bad_body("missing field `tableName`")
        if "data" not in message:
            raise arguments.bad_body("missing field `data`")
    return streams, messages


def _parse_fivetran(body):
    if not isinstance(body, list):
        raise arguments.bad_body("expected a list of rows")
    rows = []
    for row in body:
        if (not isinstance(row, dict) or not isinstance(row.get("table"), str)
                or row.get("operation") not in _OPERATIONS or not isinstance(row.get("row"), dict)):
            raise arguments.bad_body("expected `table`, `operation` (Upsert, Update or HardDelete) and `row`")
        try:
            fields = values.from_encoded(row["row"])
            values.check_value(fields)
        except ValueError as error:
            raise arguments.bad_body(str(error)) from None
        except ApiError as error:
            raise arguments.bad_body(error.message) from None
        if not isinstance(fields, dict):
            raise arguments.bad_body("row: expected an object")
        rows.append((row["table"], row["operation"], fields))
    return rows


def _parse_definition(body):
    definition = _object(body).get("tableDefinition")
    if not isinstance(definition, dict) or not isinstance(definition.get("tableName"), str):
        raise arguments.bad_body("missing field `tableName`")
    indexes = definition.get("indexes")
    if not isinstance(indexes, list):
        raise arguments.bad_body("missing field `indexes`")
    for index in indexes:
        if not isinstance(index, dict) or not isinstance(index.get("indexDescriptor"), str):
            raise arguments.bad_body("missing field `indexDescriptor`")
        _strings(index, "fields")
    return definition


def _check_definition(definition):
    """(table, [(index name, fields)]) of a table definition; its document type is not enforced."""
    table = definition["tableName"]
    if not values.is_identifier(table):
        raise bad_request("InvalidTableName", f"{table!r} is not a valid table name")
    if table.startswith("_"):
        raise bad_request("TableNameReserved", f"{table} is a reserved table name")
    found = {}
    for index in definition["indexes"]:
        name = index["indexDescriptor"]
        if not values.is_identifier(name):
            raise bad_request("InvalidIndexName", f"{name!r} is not a valid index name")
        if not index["fields"]:
            raise bad_request("EmptyIndex", f"In table \"{table}\" the index \"{name}\" has no fields")
        if name in found:
            raise bad_request("IndexNamesNotUnique", f"In table \"{table}\" two indexes are called \"{name}\"")
        try:
            found[name] = tuple(tables.check_index_path(path.split(".")) for path in index["fields"])
        except ValueError:
            raise bad_request("InvalidIndexField", f"The index \"{name}\" has an invalid field") from None
        tables.check_index_fields(found[name])
        if name.startswith("_") and not name.startswith("_fivetran"):
            raise bad_request("IndexNameReserved", f"In table \"{table}\" the index name \"{name}\" is reserved")
    if not all(name.startswith("_") for name in found):
        raise internal_error()
    return table, sorted(found.items())


def _parse_truncate(body):
    table = arguments.body_string(_object(body), "tableName")
    kind, before = body.get("deleteType"), body.get("deleteBefore")
    if table is None or kind not in ("SoftDelete", "HardDelete"):
        raise arguments.bad_body("expected `tableName` and `deleteType` (SoftDelete or HardDelete)")
    if before is None:
        return table, None, kind
    try:
        moment = datetime.datetime.fromisoformat(before)
        if moment.tzinfo is None:
            raise ValueError
    except (TypeError, ValueError):
        raise arguments.bad_body("deleteBefore: expected an RFC 3339 timestamp") from None
    return table, float(moment.timestamp() * 1000 // 1), kind
