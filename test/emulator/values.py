"""Convex values: ids, names, sizes, and the three JSON encodings.

In memory: null is None, boolean is bool, int64 is int, float64 is float, string is str, bytes is
bytes, array is list, object is dict with its keys in byte order (field names are ASCII, so the order
of Python strings is the byte order).

Convex: crates/value/src/{id_v6,export,json}, crates/value/src/{size,object,array}.rs.
"""

import base64
import functools
import json
import math
import operator
import re
import struct
from json.encoder import encode_basestring as quote

from errors import bad_request

CLEAN = 0     # `json`: lossy
ENCODED = 1   # `convex_encoded_json`: exact and self-describing
EXPORT = 2    # `export_json`: exact where 1 and 1.0 are kept apart

FORMATS = {
    "json": CLEAN, "convex_clean_json": CLEAN,
    "convex_encoded_json": ENCODED, "convex_json": ENCODED,
    "export_json": EXPORT,
}

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1

MAX_DOCUMENT_SIZE = 1 << 20
MAX_NESTING = 64
MAX_DOCUMENT_NESTING = 16
MAX_FIELDS = 1024
MAX_ARRAY = 8192
MAX_FIELD_NAME = 1024

# ---------------------------------------------------------------- document ids

MIN_ID = "0400000000000000000000000000248"   # table 1, all zero: "the start of a table"

_FROM_CROCKFORD = bytes.maketrans(b"0123456789abcdefghjkmnpqrstvwxyz",
                                  b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
_ID_TEXT = re.compile(r"[0-9a-hjkmnp-tv-z]{31,37}\Z")


_WEIGHTS = tuple(range(40, 0, -1))


def fletcher16(data):
    """Both sums mod 256: the second counts every byte once for each byte from it to the end."""
    first = sum(data) & 255
    second = sum(map(operator.mul, data, _WEIGHTS[40 - len(data):])) & 255
    return second << 8 | first


@functools.lru_cache(maxsize=1000)
def encode_varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_PAIRS = [a + b for a in "0123456789abcdefghjkmnpqrstvwxyz" for b in "0123456789abcdefghjkmnpqrstvwxyz"]


def encode_id(table_number, internal_id):
    """Table number and 16 bytes -> the text of a document id."""
    data = encode_varint(table_number) + internal_id
    data += fletcher16(data).to_bytes(2, "little")
    size = len(data)
    padded = data + bytes(-size % 5)
    text = ""
    for start in range(0, size, 5):
        group = int.from_bytes(padded[start:start + 5], "big")
        text += (_PAIRS[group >> 30] + _PAIRS[group >> 20 & 1023] + _PAIRS[group >> 10 & 1023]
                 + _PAIRS[group & 1023])
    return text[:(size * 8 + 4) // 5]


def decode_id(text):
    """The text of a document id -> (table number, 16 bytes), or None if it is none."""
    if not isinstance(text, str) or not _ID_TEXT.match(text):
        return None
    padded = text.encode().translate(_FROM_CROCKFORD)
    try:
        data = base64.b32decode(padded + b"=" * (-len(padded) % 8))
    except ValueError:
        return None
    number = shift = size = 0
    for byte in data[:5]:
        number |= (byte & 127) << shift
        shift += 7
        size += 1
        if byte < 128:
            break
    if len(data) != size + 18 or not 0 < number < 1 << 32:
        return None
    if encode_id(number, data[size:size + 16]) != text:
        return None    # a bad checksum, or not the canonical text
    return number, data[size:size + 16]


def tablet_text(tablet_id):
    return base64.urlsafe_b64encode(tablet_id).rstrip(b"=").decode()


def parse_tablet(text):
    if not isinstance(text, str) or not re.match(r"[A-Za-z0-9_-]{22}\Z", text):
        return None
    data = base64.urlsafe_b64decode(text + "==")
    return data if tablet_text(data) == text else None


# ---------------------------------------------------------------- names

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_FIELD_NAME = re.compile(r"[ -#%-~][ -~]*\Z")


def is_identifier(name):
    return bool(_IDENTIFIER.match(name)) and name.strip("_") != ""


def is_field_name(name):
    return len(name) <= MAX_FIELD_NAME and (name == "" or bool(_FIELD_NAME.match(name)))


def is_component_path(path):
    return path == "" or all(is_identifier(part) for part in path.split("/"))


# ---------------------------------------------------------------- values -> JSON text

def float_text(number):
    """The shortest text that reads back as this finite number; always with `.` or `e`.

    The digits are Python's; the layout is that of Rust's ryu as serde_json uses it: decimal notation
    from 1e-5 up to and without 1e16, no `+` and no leading zeros in the exponent.
    """
    text = repr(number)
    mark = text.find("e")
    if mark < 0:
        return text
    exponent = int(text[mark + 1:])
    mantissa = text[:mark]
    if exponent == -5:
        sign = "-" if mantissa[0] == "-" else ""
        return sign + "0.0000" + mantissa.lstrip("-").replace(".", "")
    return f"{mantissa}e{exponent}"


def _base64(data):
    return base64.b64encode(data).decode()


def _float_marker(number):
    return '{"$float":"%s"}' % _base64(struct.pack("<d", number))


def _float_clean(number):
    if number - number == 0:
        return float_text(number)
    return '"NaN"' if number != number else '"Infinity"' if number > 0 else '"-Infinity"'


def _float_encoded(number):
    if number - number != 0 or (number == 0 and math.copysign(1, number) < 0):
        return _float_marker(number)
    return float_text(number)


def _float_export(number):
    return float_text(number) if number - number == 0 else _float_marker(number)


def _make_encoder(float_of, int_of, bytes_of):
    """An encoder is a function from a value to JSON text; one table entry per type."""
    def encode(value):
        return by_type[type(value)](value)

    def array(value):
        return "[" + ",".join([by_type[type(item)](item) for item in value]) + "]"

    def fields(value):
        return ",".join([quote(key) + ":" + by_type[type(item)](item)
                         for key, item in value.items()])

    by_type = {
        type(None): lambda value: "null",
        bool: lambda value: "true" if value else "false",
        str: quote,
        float: float_of,
        int: int_of,
        bytes: bytes_of,
        list: array,
        dict: lambda value: "{" + fields(value) + "}",
    }
    return encode, fields


_CODECS = (
    _make_encoder(_float_clean,
                  lambda value: f'"{value}"',
                  lambda value: f'"{_base64(value)}"'),
    _make_encoder(_float_encoded,
                  lambda value: '{"$integer":"%s"}' % _base64(value.to_bytes(8, "little", signed=True)),
                  lambda value: '{"$bytes":"%s"}' % _base64(value)),
    _make_encoder(_float_export,
                  str,
                  lambda value: '{"$bytes":"%s"}' % _base64(value)),
)


def encode_value(value, value_format):
    return _CODECS[value_format][0](value)


def encode_fields(document, value_format):
    """`"a":1,"b":2`: the members of an object without its braces."""
    return _CODECS[value_format][1](document)


# ---------------------------------------------------------------- JSON -> values

def _reject_constant(text):
    raise ValueError(f"{text} is not JSON")


class RepeatedKeys(dict):
    """An object in which a member name stood twice (the last one is kept)."""

    repeated = frozenset()

    def __repr__(self):
        return f"{super().__repr__()} with {sorted(self.repeated)} repeated"


def _object(pairs):
    out = dict(pairs)
    if len(out) == len(pairs):
        return out
    names = [name for name, _ in pairs]
    marked = RepeatedKeys(out)
    marked.repeated = frozenset(name for name in out if names.count(name) > 1)
    return marked


def _nesting(text):
    """An upper bound for the depth of brackets in JSON text."""
    depth = deepest = 0
    for part in re.findall(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if part in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif part in b"]}":
            depth -= 1
    return deepest


def _finite_float(text):
    number = float(text)
    if number - number != 0:
        raise ValueError("number out of range")
    return number


def _json_integer(text):
    number = int(text)
    if number.bit_length() > 1023:
        raise ValueError("number out of range")
    return number if number or text[0] != "-" else -0.0


MAX_JSON_NESTING = 127   # serde_json gives up at the 128th level


def parse_json(data, parse_float=_finite_float, parse_int=_json_integer):
    """Strict JSON as serde_json reads it; ValueError otherwise."""
    if data.count(b"[") + data.count(b"{") > MAX_JSON_NESTING and _nesting(data) > MAX_JSON_NESTING:
        raise ValueError("recursion limit exceeded")
    text = data.decode("utf-8")
    value = json.loads(text, object_pairs_hook=_object, parse_constant=_reject_constant,
                       parse_float=parse_float, parse_int=parse_int)
    if "\\u" in text and re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")   # a lone surrogate is a ValueError
    return value


def _decode_marker(key, text):
    if key not in ("$integer", "$float", "$bytes") or not isinstance(text, str):
        raise ValueError(f"{key} is not a valid type name")
    data = base64.b64decode(text, validate=True)
    if key == "$bytes":
        return data
    if len(data) != 8:
        raise ValueError(f"{key} must be 8 bytes")
    if key == "$integer":
        return int.from_bytes(data, "little", signed=True)
    number = struct.unpack("<d", data)[0]
    if number - number == 0 and number != 0:
        raise ValueError("Float64 should be encoded as a number")
    return number


def from_encoded(value):
    """`convex_encoded_json` (already parsed) -> a value. Every JSON number is a float64."""
    if isinstance(value, dict):
        if len(value) == 1:
            (key, item), = value.items()
            if key.startswith("$"):
                return _decode_marker(key, item)
        for key in value:
            if not is_field_name(key):
                raise ValueError(f"Field name {key!r} is not allowed")
        return {key: from_encoded(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [from_encoded(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def from_export(value):
    """`export_json` (parsed with int and float kept apart) -> a value."""
    if isinstance(value, dict):
        if len(value) == 1:
            (key, item), = value.items()
            if key.startswith("$"):
                return _decode_marker(key, item)
        for key in value:
            if not is_field_name(key):
                raise ValueError(f"Field name {key!r} is not allowed")
        return {key: from_export(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [from_export(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        if not INT64_MIN <= value <= INT64_MAX:
            raise ValueError(f"Integer {value} does not fit in 64 bits")
    return value


def from_plain(value):
    """JSON of files without types: every number is a float64, names that start with `$` are refused."""
    if isinstance(value, dict):
        for key in value:
            if not is_field_name(key):
                raise ValueError(f"Field name {key!r} is not allowed")
        return {key: from_plain(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def canonical(value):
    """The same value with the keys of every object in byte order."""
    if type(value) is dict:
        return {key: canonical(value[key]) for key in sorted(value)}
    if type(value) is list:
        return [canonical(item) for item in value]
    return value


def same_value(left, right):
    """Equality of values: 1 is not 1.0, 0.0 is not -0.0, a NaN equals itself."""
    if type(left) is not type(right):
        return False
    if type(left) is float:
        return struct.pack("<d", left) == struct.pack("<d", right)
    if type(left) is list:
        return len(left) == len(right) and all(map(same_value, left, right))
    if type(left) is dict:
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    return left == right


# ---------------------------------------------------------------- order

_INT_TAGS = ((1, 0x07, 0x09), (2, 0x06, 0x0A), (4, 0x05, 0x0B), (8, 0x04, 0x0C))    # bytes, negative, positive


def sort_key(value):
    """The bytes by which Convex orders values in indexes: equal exactly for equal values."""
    kind = type(value)
    if kind is str:
        return b"\x10" + _escaped(value.encode())
    if kind is float:
        bits = struct.unpack(">Q", struct.pack(">d", value))[0]
        return struct.pack(">BQ", 0x0D, ~bits & (1 << 64) - 1 if bits >> 63 else bits | 1 << 63)
    if kind is int:
        if value == 0:
            return b"\x08"
        size, below, above = next(each for each in _INT_TAGS if -1 << 8 * each[0] - 1 <= value < 1 << 8 * each[0] - 1)
        return bytes([below if value < 0 else above]) + value.to_bytes(size, "big", signed=True)
    if kind is bool:
        return b"\x0f" if value else b"\x0e"
    if kind is bytes:
        return b"\x11" + _escaped(value)
    if kind is list:
        return b"\x12" + b"".join(map(sort_key, value)) + b"\0"
    if kind is dict:
        return b"\x15" + b"".join([_escaped(name.encode()) + (b"" if name else b"\xff") + sort_key(item)
                                   for name, item in value.items()]) + b"\0"
    return b"\x03"


def _escaped(data):
    return data.replace(b"\0", b"\0\xff") + b"\0"


# ---------------------------------------------------------------- limits of values

def value_size(value):
    """Convex's own size of a value, which its limits count."""
    kind = type(value)
    if kind is str:
        return len(value.encode()) + 2 if not value.isascii() else len(value) + 2
    if kind is dict:
        return 2 + sum([len(key) + 1 + value_size(item) for key, item in value.items()])
    if kind is list:
        return 2 + sum([value_size(item) for item in value])
    if kind is bytes:
        return len(value) + 2
    if kind is float or kind is int:
        return 9
    return 1


def check_value(value):
    """Raises what Convex says of what is not even a value; gives how deep it is nested."""
    if isinstance(value, list):
        if len(value) > MAX_ARRAY:
            raise bad_request("ArrayTooLong", f"Array length is too long ({len(value)} > maximum "
                              f"length {MAX_ARRAY})")
        items = value
    elif isinstance(value, dict):
        if len(value) > MAX_FIELDS:
            raise bad_request("TooManyFieldsError", f"Object has too many fields ({len(value)} > "
                              f"maximum number {MAX_FIELDS})")
        items = value.values()
    else:
        return 0
    nesting = 1 + max([check_value(item) for item in items if isinstance(item, (list, dict))], default=0)
    if nesting > MAX_NESTING:
        raise bad_request("TooNestedError", f"Value is too nested (nested {nesting} levels deep > maximum nesting "
                          f"{MAX_NESTING})")
    return nesting


def check_document(document):
    """Raises what Convex says of a value that is no document, before it looks at schema and size."""
    nesting = check_value(document)
    faults = []
    if nesting > MAX_DOCUMENT_NESTING:
        faults.append(f"Document is too nested (nested {nesting} levels deep > maximum nesting {MAX_DOCUMENT_NESTING})")
    faults += [f"Field '{name}' starts with an underscore, which is only allowed for system fields like '_id'"
               for name in document if name.startswith("_") and name not in ("_id", "_creationTime")]
    if faults:
        raise bad_request("InvalidDocumentError", f"{document['_id']} isn't a valid document: " + "\n ".join(faults))


def check_size(document):
    """The size of a document that is not too large."""
    size = value_size(document)
    if size > MAX_DOCUMENT_SIZE:
        raise bad_request("ValueTooLargeError", f"Value is too large ({size} bytes > maximum size "
                          f"{MAX_DOCUMENT_SIZE} bytes)")
    return size
