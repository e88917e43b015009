"""Convex's own read functions, as far as they are asked for here: pages of a table by the time of creation.

Convex: npm-packages/system-udfs/convex/_system/frontend/paginatedTableDocuments.ts.
"""

import base64
import json

import values

MAX_ITEMS = 8192


class FunctionError(Exception):
    """What the function throws; no HTTP error."""


def paginated_documents(store, args, value_format):
    """A page of a root table, the newest first, as text. Filters, indexes and components are not there."""
    table, items, cursor = _check(args)
    with store.lock:
        ts = store.head()
        tablet = next((tablet for tablet in store.tablets_at(ts) if (tablet.component, tablet.name) == ("", table)), None)
        rows = [] if tablet is None else [revision.doc for _, revision in tablet.read(ts, None, 1 << 62)]
    rows.sort(key=_place, reverse=True)
    if cursor is not None:
        rows = [row for row in rows if _place(row) < cursor]
    page = rows[:items]
    last = _place(page[-1]) if page else cursor or (0, "")
    following = base64.b64encode(json.dumps([table, *last]).encode()).decode()
    return (f'{{"continueCursor":"{following}","isDone":{json.dumps(len(page) < items)},"page":['
            + ",".join(values.encode_value(row, value_format) for row in page)
            + '],"pageStatus":null,"splitCursor":null}')


def list_by_id(store, args, ts, value_format):
    """The documents of root tables by their ids, in that order; null for one that is not there, or in another table."""
    for name in ("ids",):
        if name not in args:
            raise FunctionError(f"Object is missing the required field `{name}`.")
    found = []
    with store.lock:
        rows = {}
        for table in {item["tableName"] for item in args["ids"]}:
            tablet = next((tablet for tablet in store.tablets_at(ts) if (tablet.component, tablet.name) == ("", table)), None)
            if tablet is not None:
                rows[table] = {revision.doc["_id"]: revision.doc for _, revision in tablet.read(ts, None, 1 << 62)}
        for item in args["ids"]:
            found.append(rows.get(item["tableName"], {}).get(item["id"]))
    return "[" + ",".join("null" if row is None else values.encode_value(row, value_format) for row in found) + "]"


def _place(row):
    return row["_creationTime"], row["_id"]


def _check(args):
    """(table, number of documents, place to go on from)"""
    if not isinstance(args, dict):
        raise FunctionError("Value does not match validator.")
    for name in ("table", "filters", "paginationOpts"):
        if name not in args:
            raise FunctionError(f"Object is missing the required field `{name}`.")
    table, options = args["table"], args["paginationOpts"]
    if not isinstance(table, str) or not isinstance(options, dict) or options.get("numItems", 0) < 1:
        raise FunctionError("Value does not match validator.")
    if args["filters"] or args.get("componentId") is not None:
        raise FunctionError("The emulator has neither filters nor components here.")
    if table.startswith("_"):
        raise FunctionError("System tables can only be accessed from db.system.query()")
    if options["numItems"] > MAX_ITEMS:
        raise FunctionError(f"Array length is too long ({int(options['numItems'])} > maximum length {MAX_ITEMS})")
    if options.get("cursor") is None:
        return table, int(options["numItems"]), None
    try:
        of_table, *place = json.loads(base64.b64decode(options["cursor"]))
    except ValueError:
        raise FunctionError("Failed to parse cursor") from None
    if of_table != table:
        raise FunctionError("InvalidCursor: the cursor belongs to another query.")
    return table, int(options["numItems"]), tuple(place)
