"""Errors as Convex answers them: a status and the two members `code` and `message`.

Convex: crates/errors/src/lib.rs.
"""

import json


class ApiError(Exception):
    """A handled error; `headers` are added to the answer."""

    def __init__(self, status, code, message, headers=()):
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = list(headers)

    def body(self):
        return json.dumps({"code": self.code, "message": self.message},
                          ensure_ascii=False, separators=(",", ":")).encode()


def bad_request(code, message):
    return ApiError(400, code, message)


def forbidden(code, message):
    return ApiError(403, code, message)


def write_conflict(table=None, description=None):
    """Something that a transaction has read changed before its commit; without a table it was a system table's."""
    if table is None:
        message = ("Data read or written in this mutation changed while it was being run. Consider reducing the amount "
                   "of data read by using indexed queries with selective index range expressions "
                   "(https://docs.convex.dev/database/indexes/).")
    else:
        message = (f"Documents read from or written to the \"{table}\" table changed while this mutation was being run "
                   f"and on every subsequent retry. {description + '. ' if description else ''}"
                   "See https://docs.convex.dev/error#1")
    return ApiError(503, "OptimisticConcurrencyControlFailure", message)


def internal_error():
    """What Convex says about anything untagged, including several mistakes of clients."""
    return ApiError(500, "InternalServerError",
                    "Your request couldn't be completed. Try again later.")
