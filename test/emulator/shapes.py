"""Inferred shapes of tables, and the JSON Schemas and column names made from them.

A shape describes the documents that are stored now. It gives up structure where Convex does: an object with
more than 64 fields or a field name that is no identifier becomes a record, and ids among many other strings
are strings.

Convex: crates/shape_inference, crates/common/src/shapes/reduced.rs, crates/common/src/json_schemas.
"""

import math

import values
from errors import bad_request

MAX_OBJECT_FIELDS = 64
MAX_UNION = 16
SYNTHETIC_SAMPLE = 2000     # these show every variation of a benchmark table
DELTA_NAMES = {"_table": {"type": "string"}, "_component": {"type": "string"},
               "_ts": {"type": "integer"}, "_deleted": {"type": "boolean"}}


class Shape:
    """What values were seen in one place; `add` widens it."""

    __slots__ = ("null", "int64", "float64", "special", "boolean", "string", "literals", "ids",
                 "bytes", "arrays", "items", "objects", "fields", "record")

    def __init__(self):
        self.null = self.int64 = self.float64 = self.special = self.boolean = self.string = False
        self.bytes = self.record = False
        self.literals = set()  # identifiers among the strings, one more than a union can hold at most
        self.ids = set()       # table numbers of the strings that are ids
        self.arrays = 0
        self.items = None
        self.objects = 0
        self.fields = {}       # name -> [times seen, Shape]

    def add(self, value):
        _ADD[type(value)](self, value)

    def _add_float(self, value):
        self.float64 = True
        if value - value != 0 or (value == 0 and math.copysign(1, value) < 0):
            self.special = True

    def _add_string(self, value):
        decoded = values.decode_id(value) if 31 <= len(value) <= 37 else None
        if decoded is not None:
            self.ids.add(decoded[0])
        elif self.string:
            return
        elif len(self.literals) <= MAX_UNION and values.is_identifier(value):
            self.literals.add(value)
        else:
            self.string = True

    def _add_array(self, value):
        self.arrays += 1
        if self.items is None:
            self.items = Shape()
        for item in value:
            self.items.add(item)

    def _add_object(self, value):
        self.objects += 1
        fields = self.fields
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                if not values.is_identifier(name):
                    self.record = True
                field = fields[name] = [0, Shape()]
            field[0] += 1
            field[1].add(item)
        if len(value) > MAX_OBJECT_FIELDS or (len(fields) > MAX_OBJECT_FIELDS and self.objects > MAX_UNION):
            self.record = True

    def keeps_ids(self):
        """Whether ids stay apart from the other strings: while all of them fit into one union."""
        others = (self.null + self.int64 + self.float64 + self.special + self.boolean + self.bytes
                  + (self.arrays > 0) + (self.objects > 0))
        return not self.string and len(self.literals) + len(self.ids) + others <= MAX_UNION

    def _add_null(self, value):
        self.null = True

    def _add_int(self, value):
        self.int64 = True

    def _add_boolean(self, value):
        self.boolean = True

    def _add_bytes(self, value):
        self.bytes = True


_ADD = {
    type(None): Shape._add_null, bool: Shape._add_boolean, int: Shape._add_int, float: Shape._add_float,
    str: Shape._add_string, bytes: Shape._add_bytes, list: Shape._add_array, dict: Shape._add_object,
}


def table_shape(tablet):
    """The shape of a tablet's documents now; kept until one of them changes."""
    version = len(tablet.commits)
    if tablet.shape is None or tablet.shape[0] != version:
        shape = Shape()
        if tablet.base is not None:
            for _, revision in tablet.read(math.inf, None, SYNTHETIC_SAMPLE):
                shape.add(revision.doc)
            for internal in tablet.revisions:
                revision = tablet.revision(internal)
                if revision is not None:
                    shape.add(revision.doc)
        else:
            for _, revision in tablet.live():
                shape.add(revision.doc)
        tablet.shape = version, shape
    return tablet.shape[1]


# ---------------------------------------------------------------- JSON Schema of a type

_BASE64 = "float64 -> little-endian -> base64"


def _float_schema(is_special, value_format):
    if not is_special:
        return {"type": "number"}
    if value_format == values.CLEAN:
        special = {"type": "string", "$description": "-inf, inf, or NaN"}
    else:
        note = "-0, -inf, inf, or NaN" if value_format == values.ENCODED else "-inf, inf, or NaN"
        special = {"type": "object", "$description": note,
                   "properties": {"$float": {"$description": _BASE64, "type": "string"}}}
    return {"$description": "float64", "anyOf": [{"type": "number"}, special]}


def _int_schema(value_format):
    if value_format == values.CLEAN:
        return {"$description": "int64 represented as base10 string", "type": "string"}
    if value_format == values.EXPORT:
        return {"$description": "int64", "type": "number"}
    return {"$description": "int64", "type": "object",
            "properties": {"$integer": {"$description": "int64 -> little-endian -> base64", "type": "string"}}}


def _bytes_schema(value_format):
    if value_format == values.CLEAN:
        return {"$description": "base64 bytes", "type": "string"}
    return {"type": "object", "$description": "base64 bytes", "properties": {"$bytes": {"type": "string"}}}


def _id_schema(table):
    return {"$description": f"Id({table})", "type": "string"}


def _object_schema(fields):
    """fields: name -> (schema, is optional)"""
    names = sorted(fields)
    return {"type": "object", "properties": {name: fields[name][0] for name in names},
            "additionalProperties": False, "required": [name for name in names if not fields[name][1]]}


class _Writer:
    """Turns shapes of one component into schemas of one format."""

    def __init__(self, component, value_format):
        self.component = component
        self.format = value_format

    def schema(self, shape):
        """Union members stand in Convex's order."""
        ids, has_strings = self._strings(shape)
        options = [_id_schema(name) for name in ids]
        if shape.null:
            options.append({"type": "null"})
        if shape.int64:
            options.append(_int_schema(self.format))
        if shape.float64:
            options.append(_float_schema(shape.special, self.format))
        if shape.boolean:
            options.append({"type": "boolean"})
        if has_strings:
            options.append({"type": "string"})
        if shape.bytes:
            options.append(_bytes_schema(self.format))
        if shape.objects and not shape.record:
            options.append(self.object(shape))
        if shape.arrays:
            options.append({"type": "array", "items": self.schema(shape.items)})
        if shape.objects and shape.record:
            options.append({})
        if not options:
            return False
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _strings(self, shape):
        """(tables whose ids stand among the strings, whether there are other strings)"""
        if not shape.keeps_ids():
            return [], bool(shape.string or shape.literals or shape.ids)
        names = [self.component.name_of_number(number) for number in sorted(shape.ids)]
        return [name for name in names if name is not None], bool(shape.literals) or None in names

    def object(self, shape):
        return _object_schema({name: (self.schema(inner), seen < shape.objects)
                               for name, (seen, inner) in shape.fields.items()})


# ---------------------------------------------------------------- declared schemas

def _validator_schema(kind, value_format):
    """A validator of `get_schema` as JSON Schema: every float special, literals as their base type."""
    name = kind["type"]
    if name == "literal":
        value = kind["value"]
        if isinstance(value, dict):
            return _int_schema(value_format)
        return {"type": "boolean" if isinstance(value, bool) else "string" if isinstance(value, str)
                else "number"}
    if name == "union":
        return {"anyOf": [_validator_schema(each, value_format) for each in kind["value"]]}
    if name == "array":
        return {"type": "array", "items": _validator_schema(kind["value"], value_format)}
    if name == "object":
        return _object_schema({field: (_validator_schema(item["fieldType"], value_format), item["optional"])
                               for field, item in kind["value"].items()})
    if name == "record":
        inner = _validator_schema(kind["values"]["fieldType"], value_format)
        return {"type": "object", "$description": f"Record with keys of type {kind['keys']['type']}",
                "additionalProperties": {"type": inner}}
    if name == "id":
        return _id_schema(kind["tableName"])
    return {
        "null": {"type": "null"}, "boolean": {"type": "boolean"}, "string": {"type": "string"}, "any": {},
        "number": _float_schema(True, value_format), "bigint": _int_schema(value_format),
        "commitTs": _int_schema(value_format), "bytes": _bytes_schema(value_format),
    }[name]


def _has_object_union(kind):
    if kind["type"] == "union":
        members = kind["value"]
        return (sum(each["type"] == "object" for each in members) > 1
                or any(map(_has_object_union, members)))
    if kind["type"] == "array":
        return _has_object_union(kind["value"])
    if kind["type"] == "object":
        return any(_has_object_union(item["fieldType"]) for item in kind["value"].values())
    return False


def _declared_schema(schema, table, value_format):
    """The declared type of a table whose documents have no object shape."""
    if schema is None:
        raise bad_request("NoSchemaForExport",
                          "There is no active schema, which is needed for streaming export.")
    declared = next((each.get("documentType") for each in schema["tables"] if each["tableName"] == table), None)
    if declared is None:
        raise bad_request("NoTableDefinitionForExport", f"The table \"{table}\" does not have a schema, which is "
                          "needed for streaming export.")
    if declared["type"] == "any":
        return _system_fields(table)
    if _has_object_union(declared) or declared["type"] != "object":
        raise bad_request("UnsupportedSchemaForExport", f"Schema for table \"{table}\" contains a union of object "
                          "types, which is unsupported for streaming export")
    made = _validator_schema(declared, value_format)
    system = _system_fields(table)
    properties = {**made["properties"], **system["properties"]}
    return {**made, "properties": {name: properties[name] for name in sorted(properties)},
            "required": sorted(made["required"] + system["required"])}


def _system_fields(table):
    return _object_schema({"_id": (_id_schema(table), False), "_creationTime": ({"type": "number"}, False)})


# ---------------------------------------------------------------- the two routes

def _table_schema(component, tablet, declared, value_format):
    shape = table_shape(tablet)
    if not shape.objects:
        schema = _system_fields(tablet.name)
    elif not shape.record:
        schema = _Writer(component, value_format).object(shape)
    else:
        schema = _declared_schema(declared, tablet.name, value_format)
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    return schema


def json_schemas(store, settings, value_format, by_component, has_deltas):
    out = {}
    for component in store.components.values():
        inner = out.setdefault(component.path, {}) if by_component else out
        declared = settings.schema if component.path == "" else None
        for tablet in sorted(component.tables.values(), key=lambda tablet: tablet.id):
            schema = _table_schema(component, tablet, declared, value_format)
            if has_deltas:
                schema["properties"].update(DELTA_NAMES)
            inner[tablet.name] = schema
    return out


def column_names(store, settings):
    out = {}
    for path in sorted(store.components):
        tables = []
        for tablet in sorted(store.components[path].tables.values(), key=lambda tablet: tablet.id):
            shape = table_shape(tablet)
            columns = ["_creationTime", "_id"]
            if shape.objects and not shape.record and tablet.name not in settings.column_names_fallback:
                columns = sorted(shape.fields)
            tables.append({"name": tablet.name, "columns": columns})
        if tables:
            out[path] = tables
    return out
