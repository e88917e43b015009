"""The declared schema (`get_schema`) as a check of documents before they are written.

Convex: crates/common/src/schemas.
"""

import values
from errors import bad_request


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
        if not self.matches(kind, fields):
            raise bad_request("SchemaEnforcementError", f"Failed to insert or update a document in table "
                              f"\"{tablet.name}\" because it does not match the schema.")

    def matches(self, kind, value):
        return getattr(self, "_" + kind["type"])(kind, value)

    def _any(self, kind, value):
        return True

    def _null(self, kind, value):
        return value is None

    def _number(self, kind, value):
        return type(value) is float

    def _bigint(self, kind, value):
        return type(value) is int

    _commitTs = _bigint

    def _boolean(self, kind, value):
        return type(value) is bool

    def _string(self, kind, value):
        return type(value) is str

    def _bytes(self, kind, value):
        return type(value) is bytes

    def _literal(self, kind, value):
        return values.same_value(values.from_encoded(kind["value"]), value)

    def _id(self, kind, value):
        decoded = values.decode_id(value)
        table = self.store.table("", kind["tableName"])
        return decoded is not None and table is not None and decoded[0] == table.number

    def _array(self, kind, value):
        return type(value) is list and all(self.matches(kind["value"], item) for item in value)

    def _union(self, kind, value):
        return any(self.matches(member, value) for member in kind["value"])

    def _record(self, kind, value):
        return (type(value) is dict
                and all(self.matches(kind["keys"], key) for key in value)
                and all(self.matches(kind["values"]["fieldType"], item) for item in value.values()))

    def _object(self, kind, value):
        if type(value) is not dict or not value.keys() <= kind["value"].keys():
            return False
        return all(self.matches(field["fieldType"], value[name]) if name in value else field["optional"]
                   for name, field in kind["value"].items())
