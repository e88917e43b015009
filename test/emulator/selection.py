"""Which components, tables and fields an export answers with.

The legacy routes take the first of `selection`, `tableName`, `component` that parses, and everything when
none does; a name that is syntactically bad is an internal error there.

Convex: crates/common/src/types/streaming_export, crates/database/src/streaming_export_selection.rs.
"""

import values
from errors import internal_error

_INCLUSION = {"included": True, "incl": True, "excluded": False, "excl": False}


class _NoParse(Exception):
    pass


def _inclusion(value):
    if not isinstance(value, str) or value not in _INCLUSION:
        raise _NoParse
    return _INCLUSION[value]


def _is_excluded(value):
    return isinstance(value, str) and value in ("excluded", "excl")


def _level(value, parse_child):
    """An object with the required `_other` -> (children, included by default)."""
    if not isinstance(value, dict) or "_other" not in value:
        raise _NoParse
    if "_other" in getattr(value, "repeated", ()):
        raise _NoParse
    other = _inclusion(value["_other"])
    children = {name: parse_child(item) for name, item in value.items() if name != "_other"}
    return children, other


def _parse_table(value):
    return None if _is_excluded(value) else _level(value, _inclusion)


def _parse_component(value):
    return None if _is_excluded(value) else _level(value, _parse_table)


class Selection:
    """`components`: path -> None or (tables: name -> None or (fields, others), others); `others`."""

    def __init__(self, components, others):
        self.components = components
        self.others = others
        self.key = repr((sorted(components.items()), others))

    def check_names(self):
        """Legacy routes answer 500 to a bad name or an excluded `_id`."""
        for path, tables in self.components.items():
            if not values.is_component_path(path):
                raise internal_error()
            for name, columns in (tables[0] if tables else {}).items():
                if not values.is_identifier(name):
                    raise internal_error()
                if columns is None:
                    continue
                fields, others = columns
                if not all(map(values.is_field_name, fields)) or not fields.get("_id", others):
                    raise internal_error()

    def includes(self, component, table):
        if component not in self.components:
            return self.others
        tables = self.components[component]
        if tables is None:
            return False
        if table not in tables[0]:
            return tables[1]
        return tables[0][table] is not None

    def columns(self, component, table):
        """None for all fields, else (field -> included, included by default)."""
        tables = self.components.get(component)
        columns = tables[0].get(table) if tables else None
        if columns is None or (columns[1] and all(columns[0].values())):
            return None
        return columns


EVERYTHING = Selection({}, True)


def one_table(component, table):
    return Selection({component: ({table: ({}, True)}, False)}, False)


def one_component(component):
    return Selection({component: ({}, True)}, False)


def _from_selection(args):
    return Selection(*_level(args["selection"], _parse_component))


def _from_table(args):
    repeated = getattr(args, "repeated", ())
    names = [name for name in ("tableName", "table_name") if name in args]
    if len(names) != 1 or names[0] in repeated or "component" in repeated:
        raise _NoParse
    table, component = args[names[0]], args.get("component")
    if not isinstance(table, str) or not (component is None or isinstance(component, str)):
        raise _NoParse
    return one_table(component or "", table)


def _from_component(args):
    if not isinstance(args.get("component"), str) or "component" in getattr(args, "repeated", ()):
        raise _NoParse
    return one_component(args["component"])


_KNOWN = {}    # repr of the arguments -> Selection; clients send the same ones again and again
_NAMES = ("selection", "tableName", "table_name", "component")


def from_arguments(args, with_selection):
    """The legacy resolution, silently falling through to everything."""
    key = repr([(name, args[name]) for name in _NAMES if name in args]), with_selection
    if isinstance(args, values.RepeatedKeys):
        return _resolve(args, with_selection)
    found = _KNOWN.get(key)
    if found is None:
        if len(_KNOWN) > 1000:
            _KNOWN.clear()
        found = _KNOWN[key] = _resolve(args, with_selection)
    return found


def _resolve(args, with_selection):
    rules = [_from_table, _from_component]
    if with_selection and "selection" in args:
        rules.insert(0, _from_selection)
    for rule in rules:
        try:
            found = rule(args)
        except _NoParse:
            continue
        found.check_names()
        return found
    return EVERYTHING
