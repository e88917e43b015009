"""Tables and hidden indexes as the import routes make, swap and await them.

Convex: crates/application/src/lib.rs (`_add_system_indexes`), crates/application/src/snapshot_import.
"""

import re
import time

import values
from errors import bad_request, internal_error, write_conflict
from tablets import Index
from transliteration import transliterate

AIRBYTE_KEY = "_by_airbyte_primary_key"
FIVETRAN_KEY = "_fivetran_by_primary_key"
FIVETRAN_SYNCED = "_fivetran_by_synced"

PREFIX = "source_"

MAX_INDEX_FIELDS = 16     # one of them is the `_creationTime` that the server appends


def check_index_path(path):
    """A field path of an index consists of identifiers; ValueError otherwise."""
    if not path or not all(map(values.is_identifier, path)):
        raise ValueError("field paths consist of identifiers")
    return tuple(path)


def check_index_fields(fields):
    """What every index refuses."""
    if len(fields) > MAX_INDEX_FIELDS:
        raise bad_request("IndexTooManyFields", f"Indexes may have at most {MAX_INDEX_FIELDS} fields.")
    if ("_id",) in fields:
        raise bad_request("IndexFieldsContainId", "Index fields cannot contain `_id`.")
    for field in fields:
        if fields.count(field) > 1:
            raise bad_request("FieldsNotUniqueWithinIndex", f"Duplicate field {'.'.join(field)} in index.")


def check_user_index(fields):
    """What an index of a client refuses beyond that."""
    if ("_creationTime",) in fields:
        raise bad_request("IndexFieldsContainCreationTime", "`_creationTime` is automatically added to the end "
                          "of each index. Don't include it in the index definition.")
    if any(name.startswith("_") for field in fields for name in field):
        raise bad_request("IndexFieldNameReserved", "Index field names cannot start with `_`.")
    if len(fields) >= MAX_INDEX_FIELDS:
        raise bad_request("IndexTooManyFields", f"Indexes may have at most {MAX_INDEX_FIELDS} fields.")


def add_indexes(tx, wanted):
    """wanted: (table, index name, fields). Missing tables are made; equal indexes stay as they are.

    The worker that backfills an index keeps writing to the table of all indexes, which whoever adds one has read:
    such a transaction loses.
    """
    for table, name, fields in wanted:
        check_user_index(fields)
        tablet = tx.table("", table, create=True)
        old = tablet.indexes.get(name)
        if old is None or old.fields != fields:
            tx.add_index(tablet, name, Index(fields, time.monotonic_ns()))
    if tx.new_indexes and tx.store.backfilling:
        raise write_conflict()


def finish_backfills(store):
    """Whoever begins a transaction finds those backfills over whose time has passed."""
    for index in list(store.backfilling):
        is_ready(store, index)


def is_ready(store, index, counts_poll=False):
    """Whether a backfill is over: after some time, or after so many polls."""
    if index.is_ready:
        return True
    index.polls += counts_poll
    waited_ms = (time.monotonic_ns() - index.made_ns) / 1e6
    limit_ms = store.index_backfill_ms
    if index.polls > store.index_backfill_polls or (limit_ms is not None and waited_ms >= limit_ms):
        index.is_ready = True
        tx = store.transaction()
        tx.system_rows = 1
        ts = tx.commit()
        if index in store.backfilling:
            store.indexes_changed(ts, store.backfilling.pop(index))
    return index.is_ready


def root_index(store, table, name):
    """The index of a root table, ready or not, or None."""
    tablet = store.table("", table)
    return tablet.indexes.get(name) if tablet else None


def copy_indexes(old, new):
    """A tablet that takes over from another has its indexes, ready."""
    for name, index in old.indexes.items() if old else ():
        copied = new.indexes[name] = Index(index.fields, index.made_ns)
        copied.is_ready = True


def clear(store, names):
    """Puts an empty tablet in the place of each root table, all at once; makes those that are missing."""
    names = list(dict.fromkeys(names))
    for name in names:
        old = store.table("", name)
        if old is not None and not all(is_ready(store, index) for index in old.indexes.values()):
            raise bad_request("InvalidImport", f"Table \"{name}\" has indexes that are still backfilling")
    made = []
    for name in names:
        tx = store.transaction()
        tablet = tx.new_tablet("", name)
        copy_indexes(store.table("", name), tablet)
        tx.hide(tablet)
        tx.commit()
        made.append(tablet)
    tx = store.transaction()
    for tablet in made:
        tx.activate(tablet)
    return tx.commit()


def valid_table_name(name):
    """The name under which the airbyte routes keep a table: made valid when it is not."""
    if values.is_identifier(name) and not name.startswith("_"):
        return name
    made = PREFIX + slug(name)
    if not values.is_identifier(made):
        raise internal_error()
    return made


def valid_field_name(name):
    if values.is_field_name(name) and not name.startswith("_"):
        return name
    made = PREFIX + slug(name)
    if not values.is_field_name(made):
        raise internal_error()
    return made


def slug(text):
    """Lower-case ASCII letters and digits with single `_` between."""
    return re.sub(r"[^a-z0-9]+", "_", transliterate(text).lower()).strip("_")
