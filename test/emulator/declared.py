"""The declared schemas and their indexes, as they were at any timestamp.

Settings say what is declared: `schema` for the root, `component_schemas`, `schemas_in_progress`, and `index_states`
for what a push or an operator has not finished. Each change is a version of the database, without a row in the log.

Convex: crates/common/src/schemas, npm-packages/system-udfs/convex/_system/frontend/{lib/filters,getSchemas}.ts,
crates/indexing/src/index_registry.rs (`require_enabled`).
"""

import copy
import json
from dataclasses import dataclass

# State of an index -> what `indexes` calls it; "missing" is in the schema and nowhere else.
STATES = {"done": "done", "backfilling": "backfilling", "backfilled": "backfilled", "missing": None}

BUILT_IN = {"by_creation_time": ("_creationTime",), "by_id": ("_id",)}

# Member of a table in a schema -> (kind, staged).
_LISTS = {"indexes": ("database", False), "stagedDbIndexes": ("database", True),
          "searchIndexes": ("search", False), "stagedSearchIndexes": ("search", True),
          "vectorIndexes": ("vector", False), "stagedVectorIndexes": ("vector", True)}


@dataclass(frozen=True)
class DeclaredIndex:
    table: str
    name: str
    kind: str
    is_staged: bool
    state: str
    fields: tuple      # names; of a database index only
    definition: dict


def with_creation_time(fields):
    """The server ends every database index with it, and stores it so."""
    return tuple(fields) if "_creationTime" in fields else (*fields, "_creationTime")


class Declaration:
    """What was declared from `ts` on."""

    def __init__(self, ts, settings):
        self.ts = ts
        self.active = copy.deepcopy({"": settings.schema, **settings.component_schemas})
        self.in_progress = copy.deepcopy(settings.schemas_in_progress)
        self.states = dict(settings.index_states)

    def same(self, other):
        return (self.active, self.in_progress, self.states) == (other.active, other.in_progress, other.states)

    def schema_text(self, component, is_active=True):
        """The JSON text of a schema, or None."""
        schema = (self.active if is_active else self.in_progress).get(component)
        if schema is None:
            return None
        return json.dumps(normal(schema), ensure_ascii=False, separators=(",", ":"))

    def indexes(self, component, table=None):
        """The indexes of the active schema, of all tables or of one."""
        found = []
        for definition in (self.active.get(component) or {}).get("tables", ()):
            if table in (None, definition["tableName"]):
                for member, (kind, is_staged) in _LISTS.items():
                    for index in definition.get(member) or ():
                        found.append(self._index(component, definition["tableName"], index, kind, is_staged))
        return found

    def _index(self, component, table, index, kind, is_staged):
        name = index["indexDescriptor"]
        place = f"{component}:{table}.{name}" if component else f"{table}.{name}"
        fields = with_creation_time(index["fields"]) if kind == "database" else ()
        return DeclaredIndex(table, name, kind, is_staged, self.states.get(place, "done"), fields, index)


def normal(schema):
    """A schema as the server has it: database indexes end with the time of creation."""
    schema = copy.deepcopy(schema)
    for table in schema.get("tables", ()):
        for member in ("indexes", "stagedDbIndexes"):
            for index in table.get(member) or ():
                index["fields"] = list(with_creation_time(index["fields"]))
    return schema


class Declarations:
    """Use under `Store.lock`."""

    def __init__(self, store, settings):
        self.store = store
        self.settings = settings
        self.restart()

    def restart(self):
        """What is declared now has always been so."""
        self.history = [Declaration(0, self.settings)]

    def update(self):
        """After a change of settings."""
        new = Declaration(self.store.last_ts + 1, self.settings)
        if not new.same(self.history[-1]):
            new.ts = self.store.next_ts()
            self.history.append(new)

    def at(self, ts):
        return next(declaration for declaration in reversed(self.history) if declaration.ts <= ts)


def check_settings(settings):
    """Raises ValueError for settings that declare nonsense."""
    for name in ("component_schemas", "schemas_in_progress", "index_states"):
        if not isinstance(settings.get(name, {}), dict):
            raise ValueError(f"{name} is an object")
    for place, state in settings.get("index_states", {}).items():
        if state not in STATES:
            raise ValueError(f"the state of index {place} is one of {', '.join(STATES)}")
    window = settings.get("query_window_s", 0)
    if window != "off" and (type(window) not in (int, float) or window < 0):
        raise ValueError('query_window_s is a number of seconds or "off"')
