"""Loads what `npx convex export` writes: a ZIP of `<table>/documents.jsonl`.

`_tables/documents.jsonl` names the table numbers; a table whose `generated_schema.jsonl` is the single line
`"uniform"` holds `export_json` (an integer is an int64), otherwise every number is a float64. Tables of a
component stand below `_components/<name>/`, nested ones below that again.

Convex: crates/application/src/{exports,snapshot_import}.
"""

import json
import re
import zipfile

import values

_PREFIX = re.compile(r"((?:.*/)?)([^/]+)/documents\.jsonl\Z")
_COMPONENT = re.compile(r"(?:\A|/)_components/([^/]+)(?=/)")
ROWS_PER_TRANSACTION = 8000


class BadBackup(ValueError):
    pass


class Archive:
    """The tables of a ZIP: (component path, table) in the order of their names."""

    def __init__(self, file):
        try:
            self.zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError) as error:
            raise BadBackup(f"not a ZIP file: {error}") from None
        self.tables = []     # (component path, table, name of the member)
        self.numbers = {}    # (component path, table) -> table number
        for member in sorted(self.zip.namelist()):
            found = _PREFIX.match(member)
            if not found:
                continue
            prefix, table = found.groups()
            path = "/".join(_COMPONENT.findall(prefix))
            if table == "_tables":
                self._read_numbers(path, member)
            elif not table.startswith("_"):
                self.tables.append((path, table, member))

    def _read_numbers(self, path, member):
        for line in self.zip.read(member).splitlines():
            row = json.loads(line)
            self.numbers[path, row["name"]] = int(row["id"])

    def is_uniform(self, member):
        schema = member.removesuffix("documents.jsonl") + "generated_schema.jsonl"
        if schema not in self.zip.namelist():
            return False
        lines = [line for line in self.zip.read(schema).splitlines() if line.strip()]
        return lines == [b'"uniform"']

    def lines(self, member):
        """(row number, text) of one table; the last line may lack its end."""
        lines = self.zip.read(member).split(b"\n")
        if not lines[-1]:
            lines.pop()
        return enumerate(lines, 1)


def parse_line(line, number):
    try:
        return values.parse_json(line)
    except ValueError as error:
        raise BadBackup(f"Row {number} wasn't valid JSON: {error}") from None


def decode_row(row, is_uniform, number):
    """One parsed line -> a document."""
    try:
        document = values.from_export(row) if is_uniform else values.from_plain(row)
        if not isinstance(document, dict):
            raise ValueError("expected an object")
    except ValueError as error:
        raise BadBackup(f"Row {number} wasn't a valid Convex value: {error}") from None
    return document


def load(store, path, component=""):
    """Adds the backup's tables below a component; `_id` and `_creationTime` are kept."""
    archive = Archive(path)
    for inner, table, member in archive.tables:
        owner = "/".join(part for part in (component, inner) if part)
        is_uniform = archive.is_uniform(member)
        rows = [decode_row(parse_line(line, number), is_uniform, number)
                for number, line in archive.lines(member)]
        number = archive.numbers.get((inner, table))
        if number is None and rows and "_id" in rows[0]:
            number = (values.decode_id(rows[0]["_id"]) or (None,))[0]
        with store.lock:
            tx = store.transaction()
            tx.component(owner, create=True)
            tablet = tx.new_tablet(owner, table, number)
            tx.activate(tablet)
            tx.commit()
            for start in range(0, len(rows), ROWS_PER_TRANSACTION):
                _insert(store, tablet, rows[start:start + ROWS_PER_TRANSACTION])


def _insert(store, tablet, rows):
    tx = store.transaction()
    for row in rows:
        internal = None
        if "_id" in row:
            decoded = values.decode_id(row["_id"])
            if decoded is None or decoded[0] != tablet.number:
                raise BadBackup(f"{row['_id']!r} is no id of table {tablet.name!r}")
            internal = decoded[1]
        tx.insert(tablet, row, internal, row.get("_creationTime"))
    tx.commit()
