"""The declared schema (`get_schema`) as a check of documents before they are written.

Convex: crates/common/src/schemas/validator.rs.
"""

import values
from errors import bad_request

_SIMPLE = {"null": (type(None), "v.null()"), "number": (float, "v.float64()"), "bigint": (int, "v.int64()"),
           "commitTs": (int, "v.commitTs()"), "boolean": (bool, "v.boolean()"), "string": (str, "v.string()"),
           "bytes": (bytes, "v.bytes()")}


class Mismatch(Exception):
    """Why a value does not match, and the way to the part that does not, innermost step first."""

    def __init__(self, reason, more=""):
        super().__init__(reason)
        self.reason = reason
        self.more = more
        self.path = []

    def text(self):
        where = "Path: " + "".join(reversed(self.path)) if self.path else ""
        return f"{self.reason}\n{where}\n{self.more}" if self.more else self.reason + where


class Enforcer:
    """Refuses documents of root tables that do not match a schema with `schemaValidation`."""

    def __init__(self, schema, store):
        self.store = store
        self.types = {table["tableName"]: table.get("documentType") for table in schema["tables"]}

    def __call__(self, tablet, document):
        kind = self.types.get(tablet.name) if tablet.component == "" else None
        if kind is None:
            return
        fields = {name: value for name, value in document.items() if name not in ("_id", "_creationTime")}
        try:
            self.check(kind, fields)
        except Mismatch as mismatch:
            raise bad_request("SchemaEnforcementError", f"Failed to insert or update a document in table "
                              f"\"{tablet.name}\" because it does not match the schema: {mismatch.text()}") from None

    def check(self, kind, value):
        name = kind["type"]
        if name in _SIMPLE:
            if type(value) is not _SIMPLE[name][0]:
                raise _no_match(kind, value)
        elif name != "any":
            getattr(self, "_" + name)(kind, value)

    def _below(self, step, kind, value):
        try:
            self.check(kind, value)
        except Mismatch as mismatch:
            mismatch.path.append(step)
            raise

    def _literal(self, kind, value):
        if not values.same_value(values.from_encoded(kind["value"]), value):
            raise Mismatch(f"`{value_text(value)}` does not match literal validator `{type_text(kind)}`.")

    def _id(self, kind, value):
        number, _ = values.decode_id(value) or (None, None)
        if "number" in kind:    # a system table's
            if number != kind["number"]:
                raise _no_match(kind, value)
            return
        found = self.store.components[""].name_of_number(number)
        if found is None:
            raise _no_match(kind, value)
        if found != kind["tableName"]:
            raise Mismatch(f'Found ID "{value}" from table `{found}`, which does not match the table name in '
                           f"validator `{type_text(kind)}`.")

    def _array(self, kind, value):
        if type(value) is not list:
            raise _no_match(kind, value)
        for at, item in enumerate(value):
            self._below(f"[{at}]", kind["value"], item)

    def _union(self, kind, value):
        members = kind["value"]
        if len(members) == 1:
            return self.check(members[0], value)
        for member in members:
            try:
                return self.check(member, value)
            except Mismatch:
                pass
        raise _no_match(kind, value)

    def _record(self, kind, value):
        if type(value) is not dict:
            raise _no_match(kind, value)
        for key, item in value.items():
            self._below(".keys()", kind["keys"], key)
            self._below(".values()", kind["values"]["fieldType"], item)

    def _object(self, kind, value):
        if type(value) is not dict:
            raise _no_match(kind, value)
        more = f"Object: {value_text(value)}\nValidator: {type_text(kind)}"
        for name, field in sorted(kind["value"].items()):
            if name in value:
                self._below("." + name, field["fieldType"], value[name])
            elif not field["optional"]:
                raise Mismatch(f"Object is missing the required field `{name}`. Consider wrapping the field validator "
                               "in `v.optional(...)` if this is expected.", more)
        for name in value:
            if name not in kind["value"]:
                raise Mismatch(f"Object contains extra field `{name}` that is not in the validator.", more)


def _no_match(kind, value):
    return Mismatch("Value does not match validator.", f"Value: {value_text(value)}\nValidator: {type_text(kind)}")


def value_text(value):
    """As Convex shows values to people."""
    if type(value) is dict:
        return "{" + ", ".join(f"{name}: {value_text(item)}" for name, item in value.items()) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(value_text, value)) + "]"
    if type(value) is bytes:
        return "b" + values.encode_value(value, values.CLEAN)
    if type(value) is int:
        return str(value)
    return values.encode_value(value, values.CLEAN)


def type_text(kind):
    name = kind["type"]
    if name in _SIMPLE:
        return _SIMPLE[name][1]
    if name == "id":
        return f'v.id("{kind["tableName"]}")'
    if name == "literal":
        value = values.from_encoded(kind["value"])
        return f"v.literal({'<bigint>' if type(value) is int else value_text(value)})"
    if name == "array":
        return f"v.array({type_text(kind['value'])})"
    if name == "record":
        return f"v.record({type_text(kind['keys'])}, {type_text(kind['values']['fieldType'])})"
    if name == "union":
        return f"v.union({', '.join(map(type_text, kind['value']))})"
    if name == "object":
        return "v.object({" + ", ".join(
            f"{name}: " + ("v.optional({})" if field["optional"] else "{}").format(type_text(field["fieldType"]))
            for name, field in sorted(kind["value"].items())) + "})"
    return "v.any()"
