"""The files of snapshot imports: CSV, JSON lines, a JSON array, ZIP -> tables with parsed rows.

Convex: crates/application/src/snapshot_import/parse.rs.
"""

import csv
import io
import json
import re

import backup
import values

MAX_JSON_ARRAY = 16 << 20

_FLOAT = re.compile(r"[+-]?(?:inf|infinity|nan|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\Z", re.IGNORECASE)


class ImportFailure(Exception):
    """Ends an import; the text is what `error_message` says."""


class Table:
    """The rows of one table of an import; `decode` makes a document of a parsed row."""

    def __init__(self, component, name, rows, is_uniform, number=None):
        self.component = component
        self.name = name
        self.rows = rows
        self.is_uniform = is_uniform
        self.number = number      # the table number that the import asks for
        self.tablet = None        # where it is written

    def has_ids(self):
        return all(isinstance(row, dict) and "_id" in row for row in self.rows)

    def first_number(self):
        """Ids of the first row decide the table number."""
        first = self.rows[0] if self.rows else None
        decoded = values.decode_id(first.get("_id")) if isinstance(first, dict) else None
        return decoded and decoded[0]


def parse(work, optional):
    """The tables of an import; ImportFailure or BadBackup when its file is not what it says."""
    if work.format == "zip":
        return _parse_zip(work.data, work.component)
    if work.format == "jsonLines":
        rows = _parse_lines(work.data)
    elif work.format == "jsonArray":
        rows = _parse_array(work.data)
    else:
        rows = _parse_csv(work.data, optional)
    return [Table(work.component, work.table, rows, False)]


def _check_bom(data):
    if data.startswith(b"\xef\xbb\xbf"):
        raise ImportFailure("UTF-8 BOM is not supported. Please save your file without BOM.")


def _parse_lines(data):
    _check_bom(data)
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [backup.parse_line(line, number) for number, line in enumerate(lines, 1)]


def _parse_array(data):
    if len(data) > MAX_JSON_ARRAY:
        raise ImportFailure(f"Import is too large for JSON ({len(data)} bytes > maximum 16 MiB). Consider converting "
                            "data to JSONLines")
    _check_bom(data)
    try:
        rows = values.parse_json(data)
    except ValueError as error:
        raise ImportFailure(f"Not valid JSON: {error}") from None
    if not isinstance(rows, list):
        raise ImportFailure("Not a JSON array")
    return rows


def _csv_cell(text):
    if not _FLOAT.match(text):
        return text
    number = float(text)
    return number if number - number == 0 else None


def _parse_csv(data, optional):
    """Header row, then rows; an empty cell of a field that the schema calls optional is left out."""
    try:
        records = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImportFailure(f"Failed to parse CSV row 0: {error}") from None
    names = [name.strip(" ") for name in records[0]] if records else []
    for name in names:
        if not values.is_field_name(name):
            raise ImportFailure(f"CSV header {json.dumps(name)} isn't a valid field name")
    rows = []
    for number, record in enumerate((record for record in records[1:] if record), 1):
        if len(record) != len(names):
            raise ImportFailure(f"CSV row {number} doesn't have all of the fields in the header")
        rows.append({name: _csv_cell(cell) for name, cell in zip(names, record)
                     if cell != "" or name not in optional})
    return rows


def _parse_zip(data, component):
    try:
        archive = backup.Archive(io.BytesIO(data))
    except backup.BadBackup:
        raise ImportFailure("invalid zip file") from None
    found = {}
    for path, name, member in archive.tables:
        path = "/".join(part for part in (component, path) if part)
        if not values.is_identifier(name):
            raise ImportFailure(f"table name '{name}' invalid")
        rows = [backup.parse_line(line, number) for number, line in archive.lines(member)]
        found[path, name] = Table(path, name, rows, archive.is_uniform(member))
    for (path, name), number in archive.numbers.items():
        path = "/".join(part for part in (component, path) if part)
        found.setdefault((path, name), Table(path, name, [], False)).number = number
    return [found[key] for key in sorted(found)]
