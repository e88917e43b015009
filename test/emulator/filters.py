"""The argument `filters` of a page of documents: what it may look like, and what its clauses mean.

A clause becomes part of an expression, in plain lists and texts, because a cursor belongs to one expression. It
compares values as indexes do, across types, and sees an absent field as less than everything.

Convex: npm-packages/system-udfs/convex/_system/frontend/{paginatedTableDocuments,lib/filters}.ts,
crates/common/src/query.rs (`Expression::eval`).
"""

import base64
import binascii
import json
import operator
import re

import values
from convex_values import UNDEFINED_PLACEHOLDER, NotAValue, decode, plain, stringify
from function_errors import Thrown, argument_error
from tablets import MISSING, field_at, index_key

COMPARISONS = {"eq": operator.eq, "neq": operator.ne, "lt": operator.lt, "lte": operator.le, "gt": operator.gt,
               "gte": operator.ge}
LISTS = ("anyOf", "noneOf")
TYPES = ("type", "notype")
_NO_BASE64 = re.compile("[^A-Za-z0-9+/]")

_IS_TYPE = {
    "string": lambda value: type(value) is str,
    "boolean": lambda value: type(value) is bool,
    "number": lambda value: type(value) is float,
    "bigint": lambda value: type(value) is int,
    "null": lambda value: value is None,
    "id": lambda value: values.decode_id(value) is not None,
    "array": lambda value: type(value) is list,
    "object": lambda value: type(value) is dict,
    "bytes": lambda value: type(value) is bytes,
    "unset": lambda value: value is MISSING,
}

# ---------------------------------------------------------------- what it may look like


def parse(text):
    """The filter expression of a base64 text, or None when there is none; raises what its author threw at him."""
    if not text:
        return None
    text = text.replace("-", "+").replace("_", "/")
    text = _NO_BASE64.sub("", text)    # js-base64 drops it
    try:
        found = values.parse_json(base64.b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError, binascii.Error) as error:
        raise Thrown(f"{error}", name="SyntaxError") from None
    if found in (None, False, 0, ""):
        return None    # JavaScript holds it for no filter
    _check(found)
    return found


def _check(found):
    if not isinstance(found, dict):
        raise _zod([], "Expected object")
    if found.get("op", "and") != "and":
        raise _zod(["op"], "Invalid literal value")
    clauses = found.get("clauses")
    if not isinstance(clauses, list):
        raise _zod(["clauses"], "Required" if "clauses" not in found else "Expected array")
    for at, clause in enumerate(clauses):
        if not _is_clause(clause):
            raise _zod(["clauses", at], "Invalid input")
    if found.get("order", "asc") not in ("asc", "desc"):
        raise _zod(["order"], "Invalid input")


def _is_clause(clause):
    if not isinstance(clause, dict) or not isinstance(clause.get("op"), str):
        return False
    op = clause["op"]
    has_members = (isinstance(clause.get("field", ""), str) and isinstance(clause.get("id", ""), str)
                   and isinstance(clause.get("enabled", True), bool))
    if op in TYPES:
        return has_members and clause.get("value", "null") in tuple(_IS_TYPE)
    if op in LISTS:
        return has_members and isinstance(clause.get("value", []), list)
    return has_members and op in COMPARISONS


def _zod(path, message):
    return Thrown(json.dumps([{"code": "invalid_type", "path": path, "message": message}], indent=2), name="ZodError")


def value_errors(clauses):
    """Values that cannot be decoded: elements of the page, each with the number of its clause."""
    errors = []
    for at, clause in enumerate(clauses):
        value = clause.get("value")
        if value in (None, False, 0, ""):
            continue    # what JavaScript holds for false is not looked at
        try:
            decode(value)
        except NotAValue:
            errors.append({"error": f"Invalid value: {stringify(value)}.", "filter": float(at)})
    return errors


# ---------------------------------------------------------------- what the clauses mean


def enabled(clauses):
    """(clauses that the server evaluates, those on types)"""
    on = [clause for clause in clauses if clause.get("enabled") is not False]
    return ([clause for clause in on if clause["op"] not in TYPES], [clause for clause in on if clause["op"] in TYPES])


def expression(clauses):
    """The clauses, AND-ed; values as JSON texts, so that expressions can be compared."""
    valid = [clause for clause in clauses if "field" in clause]
    return ["and", *map(_term, valid)] if valid else ["and"]


def _term(clause):
    op, field = clause["op"], clause["field"]
    if "value" not in clause:
        raise Thrown("Unexpected type of undefined")
    value = clause["value"]
    if op in COMPARISONS:
        return [op, field, operand(decode(value))]
    try:
        operands = [operand(plain(item)) for item in value]
    except NotAValue as error:
        raise Thrown(str(error)) from None
    return [op, field, operands]


def operand(value):
    """An operand in an expression: the bytes by which it is compared, as text."""
    return index_key(MISSING if value == UNDEFINED_PLACEHOLDER else value).hex()


def field_path(text):
    """`a.b` -> ("a", "b")."""
    trimmed = text.strip(".")
    if not trimmed:
        raise argument_error("query", "queryPage", f"Empty path {text}")
    path = tuple(trimmed.split("."))
    for name in path:
        if not values.is_identifier(name):
            raise argument_error("query", "queryPage", f"Invalid identifier {name}: Identifiers must start with a letter "
                                 "and can only contain letters, digits, and underscores.")
    return path


def predicate(expr):
    """A function from a document to whether it matches; None when everything does."""
    tests = [_test(*term) for term in expr[1:]]
    tests = [test for test in tests if test is not None]
    return (lambda document: all(test(document) for test in tests)) if tests else None


def _test(op, field, operands):
    path = field_path(field) if operands != [] else None
    if op in COMPARISONS:
        compare, key = COMPARISONS[op], bytes.fromhex(operands)
        return lambda document: compare(index_key(field_at(document, path)), key)
    if not operands:
        return None    # an empty list is no condition
    keys = frozenset(map(bytes.fromhex, operands))
    if op == "anyOf":
        return lambda document: index_key(field_at(document, path)) in keys
    return lambda document: index_key(field_at(document, path)) not in keys


def type_test(clauses):
    """What JavaScript takes out of a page that has been cut already; top-level fields only."""
    wanted = [(clause["field"], _IS_TYPE.get(clause.get("value"), lambda value: False), clause["op"] == "type")
              for clause in clauses if "field" in clause]
    return lambda document: all(is_type(document.get(field, MISSING)) == is_wanted for field, is_type, is_wanted in wanted)
