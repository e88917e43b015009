"""Convex's own read functions: what each takes and what it answers.

A handler gets a Reading and its checked arguments; revisions in its answer stand for documents.

Convex: npm-packages/system-udfs/convex/_system/{cli,frontend}.
"""

import components
import filters
import index_ranges
import paging
import values
from auth import VIEW_BACKUPS, VIEW_DATA
from declared import STATES
from function_errors import FunctionError, Thrown, argument_error
from imports import IMPORTS_TABLE_NUMBER
from store import VIRTUAL_TABLES

# ---------------------------------------------------------------- validators

_STRING, _NUMBER, _NULL = {"type": "string"}, {"type": "number"}, {"type": "null"}


def _union(*kinds):
    return {"type": "union", "value": list(kinds)}


def _literal(text):
    return {"type": "literal", "value": text}


def _object(_optional=None, **required):
    fields = {name: {"fieldType": kind, "optional": False} for name, kind in required.items()}
    fields.update({name: {"fieldType": kind, "optional": True} for name, kind in (_optional or {}).items()})
    return {"type": "object", "value": fields}


_NULLABLE = _union(_STRING, _NULL)
_COMPONENT = {"componentId": _NULLABLE}
_PAGINATION = _object({"endCursor": _NULLABLE, "id": _NUMBER, "maximumRowsRead": _NUMBER, "maximumBytesRead": _NUMBER},
                      numItems=_NUMBER, cursor=_NULLABLE)


class SystemFunction:
    def __init__(self, operation, validator, handler):
        self.operation = operation    # a permission, or None: any administrator may
        self.validator = validator
        self.handler = handler


# ---------------------------------------------------------------- pages


def _short_page(rows):
    """The answer where nothing was paginated."""
    return {"continueCursor": "", "isDone": True, "page": rows}


def _user_table(name, method="query"):
    if name.startswith("_"):
        raise Thrown(f"System tables can only be accessed from db.system.{method}().")


def _checked_table(reading, name, argument="query", function="queryPage"):
    """The tablet of a user table, or None; a name that none can have is an error."""
    if not values.is_identifier(name):
        raise argument_error(argument, function, f"Invalid table name {name}")
    return reading.table(name)


def paginated_table_documents(reading, args):
    found = filters.parse(args["filters"]) or {"clauses": []}
    if reading.ignores_filter:
        found = {"clauses": [], "order": found.get("order", "desc")}
    errors = filters.value_errors(found["clauses"])
    if errors:
        return _short_page(errors)
    conditions, type_conditions = filters.enabled(found["clauses"])
    _user_table(args["table"])
    choice, has_range, error = _choice(reading, args["table"], found)
    if error is not None:
        return _short_page([error])
    if not has_range and len(conditions) == 1 and conditions[0].get("field") == "_id" and conditions[0]["op"] == "eq":
        return _short_page(_point(reading, args["table"], conditions[0].get("value")))
    expression = filters.expression(conditions) if conditions else None
    query = paging.Query(args["table"], found.get("order", "desc"), choice, expression)
    return _page(reading, query, args["paginationOpts"], filters.type_test(type_conditions))


def _choice(reading, table, found):
    """(the choice of an index or None, whether it has clauses, an error for the page or None)"""
    index = found.get("index")
    if index in (None, False, 0, ""):
        return None, False, None
    if not isinstance(index, dict):
        raise Thrown("Cannot use 'in' operator to search for 'search' in " + str(index), name="TypeError")
    clauses = index.get("clauses")
    if not isinstance(clauses, list):
        raise Thrown("Cannot read properties of undefined (reading 'filter')", name="TypeError")
    name = index.get("name", "undefined")
    fields = index_ranges.find(reading.declaration, reading.component, table, name)
    if "search" in index:
        at, error = index_ranges.check_search(name, fields, clauses, found.get("order", "desc")) or (0, None)
    else:
        at, error = -1, index_ranges.check(name, fields, clauses)
    if error is not None:
        return None, False, {"error": error, "filter": float(at)}
    if "search" in index:
        raise FunctionError("The emulator declares search indexes, but has no search.")
    return index_ranges.choose(name, fields, clauses), any(map(index_ranges.is_enabled, clauses)), None


def _point(reading, table, document_id):
    number, internal = values.decode_id(document_id) or (None, None)
    tablet = _checked_table(reading, table, "table", "db.normalizeId") if isinstance(document_id, str) else None
    if tablet is None or tablet.number != number:
        return []
    revision = reading.get(tablet, internal)
    return [] if revision is None else [revision]


def _page(reading, query, options, type_test=None):
    tablet = _checked_table(reading, query.table)
    if query.index is not None:
        _usable(reading, query, tablet)
    answer = paging.page(reading, tablet, query, options)
    if len(answer["page"]) > values.MAX_ARRAY:
        raise Thrown(f"Array length is too long ({len(answer['page'])} > maximum length {values.MAX_ARRAY})")
    if type_test is not None:
        answer["page"] = [revision for revision in answer["page"] if type_test(revision.doc)]
    return answer


def _usable(reading, query, tablet):
    """The database knows more of an index than the schema does."""
    place = f"{query.table}.{query.index.name}"
    state = next((index.state for index in reading.declaration.indexes(reading.component, query.table)
                  if index.name == query.index.name), "done")
    if tablet is None or state == "missing":
        raise Thrown(f"Index {place} not found.")
    if state != "done":
        raise Thrown(f"Index {place} is currently backfilling and not available to query yet.")


def table_data(reading, args):
    name = args["table"]
    query = paging.Query(name, args["order"])
    if name.startswith("_"):
        return paging.page(reading, reading.virtual(name), query, args["paginationOpts"])
    return _page(reading, query, args["paginationOpts"])


# ---------------------------------------------------------------- single documents


def get_by_id(reading, args):
    """Of any user table, else of a virtual one; what is no id is in neither."""
    number, internal = values.decode_id(args["id"]) or (None, None)
    tablet = reading.by_number(number) or _virtual_of(reading, number)
    return None if tablet is None else reading.get(tablet, internal)


def _virtual_of(reading, number):
    return next((reading.virtual(name) for name, (of_table, _) in VIRTUAL_TABLES.items() if of_table == number), None)


_PHYSICAL = {physical: name for name, (_, physical) in VIRTUAL_TABLES.items()}


def list_by_id(reading, args):
    return [_by_id_and_table(reading, each["id"], each["tableName"]) for each in args["ids"]]


def _by_id_and_table(reading, document_id, name):
    if name.startswith("_"):
        tablet = reading.virtual(_PHYSICAL.get(name, name))
    else:
        tablet = _checked_table(reading, name, "table", "db.normalizeId")
    number, internal = values.decode_id(document_id) or (None, None)
    return None if tablet is None or tablet.number != number else reading.get(tablet, internal)


# ---------------------------------------------------------------- tables


def table_size(reading, args):
    return 0.0 if args["tableName"] == "" else cli_table_size(reading, args)


def cli_table_size(reading, args):
    _user_table(args["tableName"])
    tablet = _checked_table(reading, args["tableName"], "table", "db.count")
    return 0.0 if tablet is None else float(reading.store.count_at(tablet, reading.ts))


def size_of_all_tables(reading, args):
    return float(sum(reading.store.count_at(tablet, reading.ts) for tablet in reading.tables()))


def tables(reading, args):
    return {"continueCursor": "end", "isDone": True, "page": [{"name": tablet.name} for tablet in reading.tables()]}


def table_mapping(reading, args):
    numbers = {number: physical for number, physical in VIRTUAL_TABLES.values()}
    numbers.update({tablet.number: tablet.name for tablet in reading.tables()})
    return {str(number): numbers[number] for number in sorted(numbers)[:1000]}


def components_list(reading, args):
    return components.describe(reading.store, reading.settings)


# ---------------------------------------------------------------- schemas and indexes


def schemas(reading, args):
    texts = {"active": reading.declaration.schema_text(reading.component),
             "inProgress": reading.declaration.schema_text(reading.component, is_active=False)}
    return {name: text for name, text in texts.items() if text is not None}


def indexes(reading, args):
    """Declared ones and those of the import routes; the component is meant by `tableNamespace`."""
    namespace = args["tableNamespace"]
    component = "" if namespace is None else components.path_of(reading.store, namespace) or None
    tablet = reading.inside(component).table(args.get("tableName") or "")
    if tablet is None:
        return None
    found = [{"backfill": _backfill(index, reading, tablet), "fields": index_fields(index), "name": index.name,
              "staged": index.is_staged}
             for index in reading.declaration.indexes(component, tablet.name) if STATES[index.state]]
    for name, index in tablet.indexes.items():
        fields = [".".join(path) for path in index.fields] + ["_creationTime"]
        found.append({"backfill": {"state": "done" if index.is_ready else "backfilling"}, "fields": fields, "name": name,
                      "staged": False})
    return found


def _backfill(index, reading, tablet):
    """A staged index stays backfilled; there are statistics only while it is being filled."""
    if index.state == "backfilling":
        total = float(reading.store.count_at(tablet, reading.ts))
        return {"state": "backfilling", "stats": {"numDocsIndexed": total // 2, "totalDocs": total}}
    return {"state": "backfilled" if index.is_staged and index.kind == "database" else STATES[index.state]}


def index_fields(index):
    """As `indexes` and `get_indexes` describe them."""
    given = index.definition
    if index.kind == "database":
        return list(index.fields)
    if index.kind == "search":
        return {"filterFields": given["filterFields"], "searchField": given["searchField"]}
    return {"dimensions": float(given["dimensions"]), "filterFields": given["filterFields"],
            "vectorField": given["vectorField"]}


# ---------------------------------------------------------------- the deployment, and its imports


def deployment_state(reading, args):
    return {"state": reading.settings.deployment_state}


def version(reading, args):
    return reading.settings.functions_version


def query_import(reading, args):
    found = reading.emulator.imports.imports.get(args["importId"])
    return None if found is None else found.document()


def list_imports(reading, args):
    """The twenty newest imports, which a client looks through before it starts another."""
    return [each.document() for each in list(reading.emulator.imports.imports.values())[:-21:-1]]


_IMPORT_ID = {"type": "id", "tableName": "_snapshot_imports", "number": IMPORTS_TABLE_NUMBER}
_WITH_COMPONENT = _object(_COMPONENT)

TABLE = {
    "_system/frontend/paginatedTableDocuments": SystemFunction(
        VIEW_DATA, _object(_COMPONENT, paginationOpts=_PAGINATION, table=_STRING, filters=_NULLABLE),
        paginated_table_documents),
    "_system/cli/tableData": SystemFunction(
        VIEW_DATA, _object(table=_STRING, order=_union(_literal("asc"), _literal("desc")), paginationOpts=_PAGINATION),
        table_data),
    "_system/frontend/getById": SystemFunction(VIEW_DATA, _object(_COMPONENT, id=_STRING), get_by_id),
    "_system/frontend/listById": SystemFunction(
        VIEW_DATA, _object(_COMPONENT, ids={"type": "array", "value": _object(id=_STRING, tableName=_STRING)}),
        list_by_id),
    "_system/frontend/tableSize": SystemFunction(VIEW_DATA, _object(_COMPONENT, tableName=_STRING), table_size),
    "_system/frontend/tableSize:sizeOfAllTables": SystemFunction(VIEW_DATA, _WITH_COMPONENT, size_of_all_tables),
    "_system/cli/tableSize": SystemFunction(VIEW_DATA, _object(tableName=_STRING), cli_table_size),
    "_system/cli/tables": SystemFunction(VIEW_DATA, _object(paginationOpts=_PAGINATION), tables),
    "_system/frontend/getTableMapping": SystemFunction(VIEW_DATA, _WITH_COMPONENT, table_mapping),
    "_system/frontend/components:list": SystemFunction(VIEW_DATA, _object(), components_list),
    "_system/frontend/getSchemas": SystemFunction(VIEW_DATA, _WITH_COMPONENT, schemas),
    "_system/frontend/indexes": SystemFunction(
        VIEW_DATA, _object({"tableName": _NULLABLE}, tableNamespace=_NULLABLE), indexes),
    "_system/frontend/deploymentState:deploymentState": SystemFunction(None, _object(), deployment_state),
    "_system/frontend/getVersion": SystemFunction(None, _object(), version),
    "_system/cli/queryImport": SystemFunction(VIEW_BACKUPS, _object(importId=_IMPORT_ID), query_import),
    "_system/cli/queryImport:list": SystemFunction(VIEW_BACKUPS, _object(), list_imports),
}
