"""The member `index` of a filter: which index, from where to where.

Bounds are made of bytes. A string is a beginning of the same string followed by NUL, so `eq` and `lte` find that one,
too, and `gt` misses it, as on Convex.

Convex: npm-packages/system-udfs/convex/_system/frontend/lib/filters.ts (`validateIndexFilter`, `applyIndexFilters`),
crates/common/src/query.rs (`IndexRange::compile`).
"""

from convex_values import UNDEFINED_PLACEHOLDER, NotAValue, decode, plain
from declared import BUILT_IN
from function_errors import Thrown
from ordered import Interval
from store import after_prefix
from tablets import MISSING, index_key

_LOWER, _UPPER = ("gte", "gt"), ("lte", "lt")
_NO_VALUE = object()


class IndexChoice:
    """An index of a query: its name, its fields, and comparisons as [op, field, bytes as text]."""

    def __init__(self, name, fields, comparisons):
        self.name = name
        self.fields = fields
        self.comparisons = comparisons

    def interval(self):
        prefix, lower, upper = b"", None, None
        for op, _, key in self.comparisons:
            key = bytes.fromhex(key)
            if op == "eq":
                prefix += key
            elif op in _LOWER:
                lower = op, key
            else:
                upper = op, key
        start, end = prefix, after_prefix(prefix) if prefix else None
        if lower is not None:
            start = prefix + lower[1] if lower[0] == "gte" else after_prefix(prefix + lower[1])
        if upper is not None:
            end = prefix + upper[1] if upper[0] == "lt" else after_prefix(prefix + upper[1])
        return Interval((start,), None if end is None else (end,))


class SearchFields:
    """What a filter may know of a search index."""

    def __init__(self, filter_fields):
        self.filter_fields = filter_fields


def find(declaration, component, table, name):
    """The fields of an index that a filter may name: a tuple, those of a search index, or None for no such index."""
    for index in declaration.indexes(component, table):
        if index.name == name and index.kind != "vector" and not index.is_staged:
            return index.fields if index.kind == "database" else SearchFields(index.definition["filterFields"])
    return BUILT_IN.get(name)


def is_enabled(clause):
    """What JavaScript holds for true."""
    return bool(_member(clause, "enabled"))


def _member(clause, name, default=None):
    if clause is None:
        raise Thrown(f"Cannot read properties of null (reading '{name}')", name="TypeError")
    return clause.get(name, default) if isinstance(clause, dict) else default


def check(name, fields, clauses):
    """The text of what makes the choice of an index invalid, or None."""
    if fields is None:
        return f"Index {name} does not exist."
    if isinstance(fields, SearchFields):
        return f"Index {name} is a search index, but the query is trying to use it as a database index."
    if len(clauses) > len(fields):
        return f"Index {name} has {len(fields)} fields, but the query has {len(clauses)} clauses."
    on = [is_enabled(clause) for clause in clauses]
    if False not in on:
        return None
    last = on.index(False)
    if True in on[last:]:
        return "Invalid index filter selection: found an enabled clause after an disabled clause."
    if any(_member(clause, "type") == "indexRange" for clause in clauses[:max(last - 1, 0)]):
        return "Invalid index filter selection: found a range filter after a non-range filter."
    return None


def check_search(name, fields, clauses, order):
    """(number of the clause or -1, text) of what makes a search invalid, or None."""
    if fields is None:
        return -1, f"Index {name} does not exist."
    if not isinstance(fields, SearchFields):
        return -1, f"Index {name} is not a search index, but the query is trying to use it as search index."
    if order != "asc":
        return -1, f"Trying to query search index `{name}` in descending order."
    used = [_member(clause, "field") for clause in clauses if is_enabled(clause)]
    for at, clause in enumerate(clauses):
        field = _member(clause, "field")
        if is_enabled(clause) and field not in fields.filter_fields:
            return at, (f"Invalid index filter selection: found a filter for field `{field}` which is not part of the filter "
                        f"fields of the search index `{name}`.")
        if is_enabled(clause) and used.count(field) > 1:
            return at, f"Invalid filter: there are multiple filters for field `{field}`."
    return None


def choose(name, fields, clauses):
    """The choice that valid clauses make."""
    comparisons = []
    used = [clause for clause in clauses if is_enabled(clause)]
    for at, clause in enumerate(used):
        if _member(clause, "type") == "indexEq":
            comparisons.append(["eq", fields[at], _operand(clause, "value")])
            continue
        if at != len(used) - 1:
            raise Thrown("Index range not supported")
        for op, value, known in (("lowerOp", "lowerValue", _LOWER), ("upperOp", "upperValue", _UPPER)):
            if not _member(clause, op):
                continue
            if clause[op] not in known:
                raise Thrown("builder[filter.lowerOp] is not a function", name="TypeError")
            comparisons.append([clause[op], fields[at], _operand(clause, value)])
    return IndexChoice(name, fields, comparisons)


def _operand(clause, name):
    """A missing value is undefined; one that cannot be decoded is taken as it stands."""
    value = _member(clause, name, _NO_VALUE)
    if value is _NO_VALUE or value == UNDEFINED_PLACEHOLDER:
        return index_key(MISSING).hex()
    try:
        return index_key(decode(value)).hex()
    except NotAValue:
        try:
            return index_key(plain(value)).hex()
        except NotAValue as error:
            raise Thrown(str(error)) from None
