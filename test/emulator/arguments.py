"""Arguments of requests: query strings and JSON bodies, parsed as strictly as Convex does.

Convex: crates/common/src/http/extract.rs.
"""

import re

import values
from errors import bad_request

JSON_LIMIT = 2 << 20
_JSON_TYPE = re.compile(r"application/(?:json|[^;/ ]+\+json)\s*(?:;.*)?\Z", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")


def bad_body(message):
    return bad_request("BadJsonBody", f"Failed to deserialize the JSON body into the target type: {message}")


def bad_query(message):
    return bad_request("BadQueryArgs", f"Failed to deserialize query string: {message}")


def json_body(request, limit=JSON_LIMIT):
    """The parsed body. Integers stay int, so that whoever reads them can be strict."""
    if not _JSON_TYPE.match(request.headers.get("content-type", "")):
        raise bad_request("BadJsonBody", "Expected request with `Content-Type: application/json`")
    if len(request.body) > limit:
        raise bad_request("BadJsonBody", "Failed to buffer the request body: length limit exceeded")
    try:
        return values.parse_json(request.body)
    except (ValueError, RecursionError) as error:
        raise bad_request("BadJsonBody", f"Failed to parse the request body as JSON: {error}") from None


def json_object(request, limit=JSON_LIMIT):
    body = json_body(request, limit)
    if not isinstance(body, dict):
        raise bad_body("expected an object")
    return body


def once(args, names):
    """Members of a struct may stand only once."""
    for name in getattr(args, "repeated", ()):
        if name in names:
            raise bad_body(f"duplicate field `{name}`")


def body_integer(args, name):
    value = args.get(name)
    if value is None:
        return None
    if type(value) is not int or not values.INT64_MIN <= value <= values.INT64_MAX:
        raise bad_body(f"{name}: invalid type, expected i64")
    return value


def body_string(args, name):
    value = args.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_body(f"{name}: invalid type, expected a string")
    return value


def query_args(request, names):
    """The query string as a dict; one of `names` twice is an error, unknown ones are kept."""
    found = {}
    repeated = set()
    for name, value in request.args:
        if name in found:
            repeated.add(name)
            if name in names:
                raise bad_query(f"duplicate field `{name}`")
        found[name] = value
    if repeated:
        found = values.RepeatedKeys(found)
        found.repeated = frozenset(repeated)
    return found


def query_integer(args, name):
    value = args.get(name)
    if value is None:
        return None
    if not _INTEGER.match(value) or not values.INT64_MIN <= int(value) <= values.INT64_MAX:
        raise bad_query(f"{name}: invalid digit found in string")
    return int(value)


def query_boolean(args, name):
    value = args.get(name, "false")
    if value not in ("true", "false"):
        raise bad_query(f"{name}: provided string was not `true` or `false`")
    return value == "true"


def value_format(text, is_export_supported=True):
    """`format`; None is the lossy default."""
    if text is None:
        return values.CLEAN
    found = values.FORMATS.get(text)
    if found is None or (found == values.EXPORT and not is_export_supported):
        raise bad_request("BadFormat", f"Unknown format: {text}")
    return found
