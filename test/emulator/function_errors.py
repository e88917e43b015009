"""How functions fail: inside an answer of status 200, as one text.

Convex: crates/application/src/redaction.rs, crates/isolate/src/environment/helpers/mod.rs.
"""


class FunctionError(Exception):
    """`data` is the value of a ConvexError, None for other errors."""

    def __init__(self, text, data=None):
        super().__init__(text)
        self.text = text
        self.data = data


class Thrown(FunctionError):
    """An exception of JavaScript: named, and with the lines of a stack."""

    def __init__(self, message, name="Error", data=None):
        super().__init__(f"Uncaught {name}: {message}\n    at handler (../_system/functions.ts:1:1)\n", data)


def nested(error):
    """The error of a function that ran inside of another one."""
    name = "Error" if error.data is None else "ConvexError"
    return Thrown(error.text.rstrip("\n"), name, error.data)


def argument_error(argument, function, cause):
    return Thrown(f"Invalid argument `{argument}` for `{function}`: {cause}")


def invalid_cursor():
    return Thrown("InvalidCursor: Tried to run a query starting from a cursor, but it looks like this cursor is from a "
                  "different query.", "ConvexError", {"isConvexSystemError": True, "paginationError": "InvalidCursor"})
