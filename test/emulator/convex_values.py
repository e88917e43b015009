"""JSON values as the JavaScript of system functions takes them: encoded ones decoded, plain ones checked, texts.

Convex: npm-packages/convex/src/values/value.ts.
"""

import math

import values

# What stands for `undefined`, which no client can send (npm-packages/system-udfs/.../lib/values.ts).
UNDEFINED_PLACEHOLDER = (
    "__CONVEX_PLACEHOLDER_undefined_I23atX0jcndVbFgXoQZffsih7eAqktCyFjgUuAeNBtfr3ySOljPSPSEOPFgprkdBO3zXNiGEJxmJ5ZFPc5C"
    "5qKesG80QRPvlJe8vgSxAt9feLTwxTg4PHfVwUaTEJU67FDwldWmTxp1guMPwxQ2jOuhEryTBf3mQ")

class NotAValue(Exception):
    """JSON that is no Convex value, with JavaScript's words."""


def decode(json_value):
    """Markers become values. JavaScript, unlike the server, refuses the marker of an ordinary zero."""
    try:
        value = values.from_encoded(json_value)
    except ValueError as error:
        raise NotAValue(str(error)) from None
    _refuse_plain_zero(json_value)
    return value


def _refuse_plain_zero(json_value):
    if isinstance(json_value, list):
        for item in json_value:
            _refuse_plain_zero(item)
    elif isinstance(json_value, dict):
        if len(json_value) == 1 and json_value.get("$float") == "AAAAAAAAAAA=":
            raise NotAValue("Float 0 should be encoded as a number")
        for item in json_value.values():
            _refuse_plain_zero(item)


def plain(json_value):
    """A value that is taken as it stands: markers are fields with a reserved name."""
    if isinstance(json_value, dict):
        for name in json_value:
            if name.startswith("$"):
                raise NotAValue(f"Field name {name} starts with a '$', which is reserved.")
            if not values.is_field_name(name):
                raise NotAValue(f"Field name {name} is not allowed")
        return {name: plain(json_value[name]) for name in sorted(json_value)}
    if isinstance(json_value, list):
        return [plain(item) for item in json_value]
    return float(json_value) if type(json_value) is int else json_value


def stringify(json_value):
    """JSON.stringify."""
    if isinstance(json_value, dict):
        return "{" + ",".join(f"{values.quote(name)}:{stringify(item)}" for name, item in json_value.items()) + "}"
    if isinstance(json_value, list):
        return "[" + ",".join(map(stringify, json_value)) + "]"
    if isinstance(json_value, str):
        return values.quote(json_value)
    if json_value is None or isinstance(json_value, bool):
        return {None: "null", True: "true", False: "false"}[json_value]
    return number_text(json_value)


def number_text(number):
    """As JavaScript prints a number: no point where none is needed."""
    number = float(number)
    if number == math.trunc(number) and abs(number) < 1e21:
        return str(int(number))
    mantissa, mark, exponent = repr(number).partition("e")
    if mark and -7 < int(exponent) < 0:
        sign = "-" if number < 0 else ""
        return f"{sign}0.{'0' * (-int(exponent) - 1)}{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{int(exponent):+d}" if mark else mantissa


def without_proto(value):
    """What is left of a value that went through JavaScript: a field `__proto__` is none there."""
    if type(value) is dict:
        return {name: without_proto(item) for name, item in value.items() if name != "__proto__"}
    if type(value) is list:
        return [without_proto(item) for item in value]
    return value
