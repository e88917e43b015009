"""Who is calling: the `Convex-Client` header, keys, permissions, in the order Convex checks them.

Convex: crates/common/src/version.rs, crates/local_backend/src/authentication.rs.
"""

import base64
import binascii
import json
import re

from errors import ApiError, bad_request, forbidden

_SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
                     r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z")
_UNSUPPORTED = {"npm": (0, 19, 1), "npm-cli": (0, 19, 1), "actions": (0, 19, 1),
                "python": (0, 0, 2), "rust": (0, 0, 1)}
_DEPRECATED = {"python": (0, 2, 0)}

# Up to these versions, clients that do not ask for a format get the encoded one.
_ENCODED_BY_DEFAULT = {"npm": (1, 4, 1), "npm-cli": (1, 4, 1), "actions": (1, 4, 1), "python": (0, 5, 0)}

VIEW_DATA = "deployment:data:view"
VIEW_BACKUPS = "deployment:backups:view"
IMPORT_BACKUPS = "deployment:backups:import"

# Operation as `check_admin_key` names it -> the permission that grants it (crates/roles/src/{eval,types}.rs).
OPERATIONS = {
    "Deploy": "deployment:deploy", "ViewEnvironmentVariables": "deployment:env:view",
    "WriteEnvironmentVariables": "deployment:env:write", "PauseDeployment": "deployment:pause",
    "UnpauseDeployment": "deployment:unpause", "ViewLogs": "deployment:logs:view", "ViewMetrics": "deployment:metrics:view",
    "ViewIntegrations": "deployment:integrations:view", "WriteIntegrations": "deployment:integrations:write",
    "ViewData": VIEW_DATA, "WriteData": "deployment:data:write", "ViewBackups": VIEW_BACKUPS,
    "CreateBackups": "deployment:backups:create", "DownloadBackups": "deployment:backups:download",
    "DeleteBackups": "deployment:backups:delete", "ImportBackups": IMPORT_BACKUPS,
    "ActAsUser": "deployment:functions:actAsUser", "RunInternalQueries": "deployment:functions:runInternalQueries",
    "RunInternalMutations": "deployment:functions:runInternalMutations",
    "RunInternalActions": "deployment:functions:runInternalActions",
    "RunTestQuery": "deployment:functions:runTestQuery", "ViewAuditLog": "deployment:auditLog:view",
    "ViewUsageLimits": "deployment:usageLimits:view", "WriteUsageLimits": "deployment:usageLimits:write",
    "ViewUsage": "deployment:usage:view",
}


def check_client(value):
    """The headers to add to the answer; raises for a refused client."""
    if value is None or not value.isascii():
        return []
    name, version = client_version(value)
    if name in _UNSUPPORTED and (version is None or version <= _UNSUPPORTED[name]):
        message = f"The Convex {name} package at this version is no longer supported. Please upgrade."
        raise ApiError(400, "ClientVersionUnsupported", message,
                       _deprecation("Unsupported", message))
    if name in _DEPRECATED and version <= _DEPRECATED[name]:
        return _deprecation("UpgradeRequired", f"The Convex {name} package at this version is deprecated "
                            "and will no longer be supported. Please upgrade.")
    return []


def client_version(value):
    """(name, version); the version is None when it is none."""
    parts = value.split("-")
    if len(parts) < 2:
        raise bad_request("InvalidClientVersion", f"Failed to parse client version {value!r}")
    for start in range(1, len(parts)):
        found = _SEMVER.match("-".join(parts[start:]))
        if found:
            return "-".join(parts[:start]).lower(), tuple(map(int, found.groups()))
    return parts[0].lower(), None


def default_format(value):
    """The name of the format for a client that asks for none."""
    if value is None or not value.isascii():
        return "json"
    name, version = client_version(value)
    is_old = name in _ENCODED_BY_DEFAULT and (version is None or version <= _ENCODED_BY_DEFAULT[name])
    return "convex_encoded_json" if is_old else "json"


def _deprecation(state, message):
    return [("x-convex-deprecation-state", state), ("x-convex-deprecation-message", message)]


class Identity:
    """`ops` is None for nobody, else the permissions; `is_acting` for a key that acts as an end user."""

    def __init__(self, ops, is_acting=False):
        self.ops = ops
        self.is_acting = is_acting

    def require_admin(self):
        if self.ops is None:
            raise forbidden("BadDeployKey", "The provided deploy key was invalid for this deployment. Double "
                            "check that the environment this key was generated for matches the desired "
                            "deployment.")

    def op_names(self):
        """As `check_admin_key` tells them."""
        if self.ops == _ADMIN:
            return []
        return [name for name, op in OPERATIONS.items() if op in self.ops]

    def is_read_only(self):
        return self.ops == _READ_ONLY

    def require(self, op):
        self.require_admin()
        if op not in self.ops:
            raise forbidden("OperationNotPermitted",
                            f"You do not have permission to perform this operation (missing {op})")

    def require_plain(self, op):
        if self.is_acting:
            raise forbidden("SystemIdentityRequired", f"Operation {op} not permitted")


NOBODY = Identity(None)
_ADMIN = frozenset(OPERATIONS.values())
_READ_ONLY = frozenset(OPERATIONS[name] for name in (
    "ViewEnvironmentVariables", "ViewLogs", "ViewMetrics", "ViewIntegrations", "ViewData", "ViewBackups",
    "DownloadBackups", "RunInternalQueries", "RunTestQuery", "ViewAuditLog", "ViewUsageLimits", "ViewUsage"))


def strip_prefix(key):
    """`prod:name|secret` -> `name|secret`; `preview:team:project|secret` -> `secret`."""
    name, bar, secret = key.partition("|")
    if not bar:
        return key
    if name.lower().startswith(("preview:", "project:")):
        return secret
    return name.partition(":")[2] + "|" + secret if ":" in name else key


class Keys:
    def __init__(self, admin, read_only):
        self.ops = {strip_prefix(key): _ADMIN for key in admin}
        self.ops.update({strip_prefix(key): _READ_ONLY for key in read_only})
        self.known = {}

    def set_permissions(self, permissions):
        """key -> list of permissions, or None to forget the key."""
        for key, ops in permissions.items():
            if ops is None:
                self.ops.pop(strip_prefix(key), None)
            else:
                self.ops[strip_prefix(key)] = frozenset(ops)
        self.known.clear()

    def identify(self, request):
        header = request.headers.get("authorization")
        if header is not None:
            identity = self.known.get(header)
            if identity is None:
                identity = self._from_header(header)
                if len(self.known) > 1000:
                    self.known.clear()
                self.known[header] = identity
            return identity
        keys = [value for name, value in request.args if name == "adminKey"]
        if len(keys) > 1:
            raise bad_request("BadQueryArgs", "Failed to deserialize query string: duplicate field `adminKey`")
        return self.from_key(keys[0]) if keys else NOBODY

    def identify_later(self, request):
        """A function that gives the identity: the header's syntax is refused now, a wrong key when it is called."""
        try:
            identity = self.identify(request)
        except ApiError as error:
            if error.status == 400:
                raise
            refusal = error
        else:
            return lambda: identity

        def refuse():
            raise refusal
        return refuse

    def from_key(self, key, is_acting=False):
        ops = self.ops.get(strip_prefix(key))
        if ops is None:
            raise ApiError(401, "BadAdminKey", "The provided admin key was invalid for this instance")
        return Identity(ops, is_acting)

    def _from_header(self, header):
        if any(not " " <= char <= "~" and char != "\t" for char in header):
            raise bad_request("HeaderParseFailure", "Failed to parse header")
        if len(header) < 7:
            raise bad_request("InvalidHeaderFailure", "Invalid authentication header")
        if header[:7].lower() == "convex ":
            key, colon, acting_user = strip_prefix(header[7:]).partition(":")
            if colon:
                _check_acting_user(acting_user)
            return self.from_key(key, bool(colon))
        if header[:7].lower() != "bearer ":
            raise bad_request("InvalidAdminKey", "Invalid admin key")
        raise _refused_token(header[7:].strip())


def _check_acting_user(text):
    try:
        attributes = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error):
        attributes = None
    if not isinstance(attributes, dict):
        raise bad_request("HeaderParseFailure", "Malformed Authorization header.")


def _refused_token(token):
    """No end user can sign in here: there are no auth providers."""
    parts = token.split(".")
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        is_token = len(parts) == 3 and isinstance(payload.get("iss"), str)
    except (IndexError, ValueError, AttributeError):
        is_token = False
    if is_token:
        return ApiError(401, "NoAuthProvider", "No auth provider found matching the given token (no providers "
                        "configured).")
    return ApiError(401, "InvalidAuthHeader", "Could not parse JWT payload. Check that the token is a valid JWT "
                    "format with three base64-encoded parts separated by dots.")
