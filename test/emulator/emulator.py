"""One emulated deployment: its database, its settings, its faults, and the way of a request through them."""

import os
import sys
import threading
import time
import traceback

import auth
import backup
import committer
import control
import declared
import faults
import live_queries
import paging
import sample
import schema
import synthetic
from errors import ApiError, internal_error
from export_routes import ExportRoutes
from function_routes import FunctionRoutes
from import_routes import SnapshotImportRoutes
from imports import Imports
from journal import Journal
from pages import Pages
from server import Response
from store import Store
from streaming_import import ImportRoutes

DEFAULT_ADMIN_KEY = "prod:happy-otter-123|0123456789abcdef"
DEFAULT_READ_ONLY_KEY = "prod:happy-otter-123|readonly"


class TimedOut(Exception):
    """The server's own 300 s are over."""


class Settings:
    """What `/_emulator/config` may change beyond the store's and the pages' own settings."""

    def __init__(self):
        self.version = "unknown"
        self.instance_name = "happy-otter-123"
        self.streaming_export = True
        self.selection_supported = True
        self.export_json_supported = True
        self.routes_missing = []
        self.column_names_fallback = []
        self.schema = None
        self.component_schemas = {}       # path -> schema
        self.schemas_in_progress = {}     # path -> schema that is being pushed
        self.index_states = {}            # "table.index" or "component:table.index" -> one of declared.STATES
        self.components_unmounted = []
        self.functions_missing = []       # paths of system functions that this server is too old for
        self.functions_version = None     # of the last push
        self.deployment_state = "running"
        self.function_error_status = 200  # or 560
        self.redact_errors = False        # the first line of function errors only, and no log lines
        self.log_lines = []               # in the answer of every function
        self.max_page_rows = 10_000       # read for one page of a query
        self.max_page_bytes = 5_000_000
        self.json_schemas_error = None
        self.extra_latency_ms = 0         # half of it on the way here, half on the way back
        self.latency_before_ms = 0
        self.latency_after_ms = 0
        self.committer = "serial"         # or "concurrent"
        self.commit_latency_ms = 0        # from begin to commit, when concurrent
        self.commit_hold = False          # no commit before this is false again
        self.import_hold = None           # "uploaded" or "in_progress": imports stay in this state
        self.import_batch_rows = 8000


def _let_pass(milliseconds):
    """Holds no lock: other connections go on."""
    if milliseconds > 0:
        time.sleep(milliseconds / 1000)


class Emulator:
    def __init__(self, admin_keys=(), read_only_keys=(), page_limit=1024, delta_limit=128, random_seed=None,
                 journal_limit=100_000, cache_bytes=2 << 30):
        self.settings = Settings()
        self.store = Store(random_seed)
        self.pages = Pages(self.store, page_limit, delta_limit, cache_bytes)
        self.keys = auth.Keys(admin_keys or (DEFAULT_ADMIN_KEY,), read_only_keys or (DEFAULT_READ_ONLY_KEY,))
        self.cursors = paging.Cursors(os.urandom(16))
        self.declarations = declared.Declarations(self.store, self.settings)
        self.journal = Journal(journal_limit)
        self.faults = faults.Faults()
        self.idle = threading.Event()    # never set: something to wait on
        self.clients = {}
        self.imports = Imports(self)
        self.committer = committer.Committer(self)
        functions = FunctionRoutes(self)
        self.routes = {route: methods for part in (ExportRoutes, ImportRoutes, SnapshotImportRoutes)
                       for route, methods in part(self).table().items()}
        self.routes.update(functions.table())
        self.sync_route = {"GET": lambda request: live_queries.upgrade(functions, request)}
        self.control = control.Control(self)

    def handle(self, request):
        """The server's handler: control, or a journalled request under its faults."""
        if request.path.startswith("/_emulator"):
            return self.control.handle(request)
        self.journal.begin(request)
        plan = self.faults.plan(request)
        travel_ms = self.settings.extra_latency_ms / 2
        _let_pass(travel_ms + self.settings.latency_before_ms)
        if plan:
            response = self._respond_under(plan, request)
        else:
            response = self.respond(request)
        _let_pass(travel_ms + self.settings.latency_after_ms)
        self.journal.finish(request, plan, response)
        return response

    def _respond_under(self, plan, request):
        try:
            return faults.run(plan, request, self.respond, self.control.mutate)
        except Exception as error:    # a fault that cannot be carried out says so
            return Response(500, [f"fault: {type(error).__name__}: {error}\n".encode()], content_type="text/plain")

    def respond(self, request):
        """The answer of the deployment itself."""
        headers = ()
        try:
            methods = self.routes.get(request.path)
            if methods is None and live_queries.PATH.match(request.path):
                methods = self.sync_route
            if methods is None or request.path in self.settings.routes_missing:
                return Response(404)
            method = "GET" if request.method == "HEAD" else request.method
            route = methods.get(method)
            if route is None:
                allowed = list(methods) + (["HEAD"] if "GET" in methods else [])
                return Response(405, headers=[("allow", ",".join(allowed))])
            headers = self._check_client(request)
            response = route(request)
        except ApiError as error:
            response = Response(error.status, [error.body()], error.headers)
        except TimedOut:
            response = Response(408)
        except Exception:    # a bug of ours is what a bug of theirs is to a client
            traceback.print_exc(file=sys.stderr)
            response = Response(500, [internal_error().body()])
        response.headers.extend(headers)
        return response

    def _check_client(self, request):
        value = request.headers.get("convex-client")
        if value not in self.clients:
            headers = auth.check_client(value)
            if len(self.clients) > 1000:
                self.clients.clear()
            self.clients[value] = headers
        return self.clients[value]

    def reset(self):
        """Back to an empty deployment; settings stay."""
        self.faults.clear()
        self.imports.clear()
        with self.store.lock:
            self.store.clear()
            self.pages.clear()
            self.declarations.restart()
        self.journal.clear()

    def settings_changed(self):
        """After `/_emulator/config`, under the store's lock."""
        active = self.settings.schema
        with self.imports.changed:
            self.imports.changed.notify_all()
        has_checks = active is not None and active.get("schemaValidation")
        self.store.enforcer = schema.Enforcer(active, self.store) if has_checks else None
        self.declarations.update()

    def wait_until(self, condition, timeout_s=300):
        """Waits for the emulator's own background work; 408 with an empty body after the server's timeout."""
        deadline = time.monotonic() + timeout_s
        while True:
            with self.store.lock:
                if condition():
                    return
            if time.monotonic() > deadline:
                raise TimedOut
            self.idle.wait(0.01)

    def seed(self, name):
        """none, demo, bench:N, bench:N:narrow, bench:N:wide"""
        kind, _, rest = name.partition(":")
        if kind == "demo":
            sample.load(self.store)
        elif kind == "bench":
            count, _, width = rest.partition(":")
            if width not in ("", "narrow", "wide"):
                raise ValueError(f"unknown width {width!r}: narrow or wide")
            synthetic.create(self.store, int(count), width == "wide")
        elif kind != "none":
            raise ValueError(f"unknown seed {name!r}: none, demo or bench:N[:narrow|wide]")

    def load_backup(self, path, component):
        backup.load(self.store, path, component)

    def state(self):
        store = self.store
        with store.lock:
            tables = [{"component": tablet.component, "table": tablet.name, "number": tablet.number,
                       "tablet": tablet.text, "state": tablet.state, "documents": tablet.count}
                      for tablet in store.tablets.values()]
            state = {"head": store.head(), "open_transactions": self.committer.open, "components": sorted(store.components), "tables": tables,
                     "log_rows": len(store.log), "log_first": store.log_ts[0] if store.log else None}
        state["settings"] = self.control.config_now()
        return state

