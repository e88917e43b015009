"""What a function is to whoever calls it: a path, an operation, a validator of its arguments, a handler.

The order of checks is that of Convex: an administrator, the function, the operation, the arguments, the component,
the work. Functions of users are not there.

Convex: npm-packages/system-udfs/convex/_system/{server,secretSystemTables}.ts, crates/convex/sync_types/src,
crates/application/src/application_function_runner.
"""

import pathlib
import re

import components
import schema
import system_functions
import values
from errors import ApiError, bad_request, internal_error
from function_errors import FunctionError, Thrown, nested
from reading import Reading

_PATH_COMPONENT = re.compile(r"(?=.*[A-Za-z0-9])[A-Za-z0-9_.]{1,64}\Z")


def parse_path(text):
    """`dir/file:export` -> (module without suffix, export)."""
    module, colon, function = text.rpartition(":")
    if not colon:
        module, function = text, "default"
    parts = [part for part in module.split("/") if part]
    suffix = pathlib.PurePosixPath(module).suffix
    if (not parts or module.startswith(("/", "./")) or suffix not in ("", ".js") or not values.is_identifier(function)
            or not all(part == "." or _PATH_COMPONENT.match(part) for part in parts)):
        raise bad_request("BadConvexFunctionIdentifier", f"{text} is not a valid path to a Convex function.")
    return "/".join(part for part in parts if part != ".").removesuffix(".js"), function


def shown(path):
    """A path in error texts."""
    module, function = path
    return module if function == "default" else f"{module}:{function}"


def run(emulator, identity, path, call, ts_of):
    """The value of a query at a timestamp; raises FunctionError. Use under `Store.lock`.

    `call` has the arguments, the entry of the journal or None, and whether a fault makes filters void. `ts_of` gives the
    timestamp, and refuses one only when the caller may run such a function at all.
    """
    module, export = path
    is_system = module.startswith("_system/")
    if is_system and (identity.ops is None or identity.is_acting):
        raise FunctionError("Operation query not permitted")
    reading = Reading(emulator, ts_of(), ignores_filter=call.ignores_filter)
    if call.entry is not None:
        call.entry.snapshot = reading.ts
    if not is_system:
        raise FunctionError(f"Could not find public function for '{shown(path)}'.")
    function = _find(emulator.settings, module, export)
    try:
        return _run(function, reading, identity, call.args)
    finally:
        if call.entry is not None:
            call.entry.add_cost(reading.cost)


def _find(settings, module, export):
    name = shown((module, export))
    exports = [path for path in system_functions.TABLE if path.partition(":")[0] == module
               and path not in settings.functions_missing]
    if not exports:
        raise FunctionError(f"Couldn't find system module '\"{module}.js\"'.")
    if name not in exports:
        raise FunctionError(f'Couldn\'t find "{export}" in module "{module}.js".')
    return system_functions.TABLE[name]


def _run(function, reading, identity, args):
    if function.operation is not None and function.operation not in identity.ops:
        raise FunctionError(f"You do not have permission to perform this operation ({function.operation}).")
    value = _arguments(args)
    try:
        schema.Enforcer({"tables": []}, reading.store).check(function.validator, value)
    except schema.Mismatch as mismatch:
        raise Thrown(mismatch.text()) from None
    component_id = value.get("componentId")
    if component_id is None:
        return function.handler(reading, value)
    if values.decode_id(component_id) is None:
        raise Thrown(f"Invalid reference _reference/currentSystemUdfInComponent/{component_id}")
    path = components.path_of(reading.store, component_id)
    if path is None:
        raise internal_error()
    try:    # the root's own id names a component without tables
        return function.handler(reading.inside(path or None), {**value, "componentId": None})
    except FunctionError as error:
        raise nested(error) from None


def _arguments(args):
    """The one argument: encoded JSON, alone or, as long ago, in an array."""
    given = args if isinstance(args, list) else [args]
    try:
        decoded = [values.from_encoded(each) for each in given]
    except ValueError as error:
        raise FunctionError(f"Invalid arguments: {error}") from None
    if not decoded:
        raise Thrown("undefined is not a valid Convex value.")
    try:
        values.check_value(decoded[0])
    except ApiError:    # JavaScript lets it pass, the validator's own reader does not
        raise internal_error() from None
    return decoded[0]
