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


def internal_error():
    """What Convex says about anything untagged, including several mistakes of clients."""
    return ApiError(500, "InternalServerError",
                    "Your request couldn't be completed. Try again later.")
