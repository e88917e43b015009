"""`/_emulator/`: the journal, faults, transactions from outside, settings. No key, JSON on one line."""

import json
import time

import committer
import declared
import tables
import values
from errors import ApiError
from server import Response
from store import VIRTUAL_TABLES
from tablets import HIDDEN


class Refused(Exception):
    """A control request that makes no sense: 400 with the reason."""


def answer(value, status=200):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, [text.encode("utf-8", "surrogatepass"), b"\n"])


class Control:
    def __init__(self, emulator):
        self.emulator = emulator
        self.store = emulator.store
        self.routes = {
            ("GET", "journal"): self.get_journal, ("DELETE", "journal"): self.delete_journal,
            ("POST", "faults"): self.post_faults, ("GET", "faults"): self.get_faults,
            ("DELETE", "faults"): self.delete_faults,
            ("POST", "mutate"): self.post_mutate, ("GET", "dump"): self.get_dump,
            ("GET", "state"): self.get_state, ("POST", "config"): self.post_config,
            ("GET", "config"): self.get_config, ("POST", "reset"): self.post_reset,
            ("POST", "seed"): self.post_seed,
        }
        self.config = self._config_table()

    def handle(self, request):
        route = self.routes.get((request.method, request.path.removeprefix("/_emulator/")))
        if route is None:
            return answer({"error": f"no {request.method} {request.path}"}, 404)
        try:
            body = json.loads(request.body) if request.body else {}
            return route(dict(request.args), body)
        except ApiError as error:
            return answer({"error": error.message, "code": error.code}, 400)
        except (Refused, ValueError, KeyError, TypeError, AttributeError) as error:
            return answer({"error": f"{type(error).__name__}: {error}"}, 400)

    # ------------------------------------------------------------ journal and faults

    def get_journal(self, args, body):
        return answer({"requests": self.emulator.journal.describe(args.get("path"))})

    def delete_journal(self, args, body):
        self.emulator.journal.clear()
        return answer({})

    def post_faults(self, args, body):
        specs = body if isinstance(body, list) else body.get("faults", [body])
        return answer({"ids": self.emulator.faults.add(specs)})

    def get_faults(self, args, body):
        return answer({"faults": self.emulator.faults.describe()})

    def delete_faults(self, args, body):
        self.emulator.faults.clear()
        return answer({})

    # ------------------------------------------------------------ data

    def post_mutate(self, args, body):
        per_transaction = body.get("rows_per_transaction")
        ts, ids = self.mutate(body["ops"], per_transaction)
        return answer({"ts": ts, "ids": ids})

    def mutate(self, ops, per_transaction=None):
        """One transaction (or several of so many rows); the last timestamp and the ids of inserts."""
        run = Mutation(self.store, per_transaction)
        with self.store.lock:
            for op in ops:
                run.apply(op)
            return run.finish(), run.ids

    def get_dump(self, args, body):
        component, name = args.get("component", ""), args["table"]
        store = self.store
        with store.lock:
            ts = int(args["ts"]) if "ts" in args else store.head()
            tablet = next((tablet for tablet in store.tablets_at(ts)
                           if (tablet.component, tablet.name) == (component, name)), None)
            if tablet is None:
                raise Refused(f"no table {name!r} in component {component!r} at {ts}")
            rows = [values.encode_value(revision.doc, values.ENCODED)
                    for _, revision in tablet.read(ts, None, 1 << 62)]
        return Response(200, [b'{"documents":[', ",".join(rows).encode(), b"]}\n"])

    def get_state(self, args, body):
        return answer(self.emulator.state())

    def post_reset(self, args, body):
        self.emulator.reset()
        return answer({"head": self.store.last_ts})

    def post_seed(self, args, body):
        self.emulator.seed(body["seed"])
        return answer({"head": self.store.last_ts})

    # ------------------------------------------------------------ settings

    def _config_table(self):
        """name -> (object, attribute): every setting lives where it is obeyed."""
        emulator, store, settings = self.emulator, self.store, self.emulator.settings
        table = {name: (settings, name) for name in vars(settings)}
        table.update({name: (emulator.pages, name) for name in ("page_limit", "delta_limit")})
        table.update({name: (store, name) for name in (
            "retention_floor", "retention_ns", "snapshot_max_age_ns", "clock_offset_ns", "head_frozen", "idle_head_ns",
            "index_backfill_ms", "index_backfill_polls", "max_tx_writes", "max_tx_bytes_written",
            "max_tx_documents_read", "max_tx_bytes_read", "max_tx_ranges", "bump_shows")})
        table.update({name: (store.versions, name) for name in ("query_window_s", "bump_ns")})
        return table

    def config_now(self):
        return {name: getattr(*place) for name, place in sorted(self.config.items())}

    def get_config(self, args, body):
        return answer(self.config_now())

    def post_config(self, args, body):
        keys = body.pop("keys", {})
        unknown = sorted(set(body) - set(self.config))
        if unknown:
            raise Refused(f"unknown setting {', '.join(unknown)}; known: {', '.join(sorted(self.config))}")
        if body.get("committer", self.emulator.settings.committer) not in committer.MODES:
            raise Refused(f"committer is one of {', '.join(committer.MODES)}")
        declared.check_settings(body)
        with self.store.lock:
            for name, value in body.items():
                owner, attribute = self.config[name]
                setattr(owner, attribute, value)
            self.emulator.settings_changed()
        self.emulator.keys.set_permissions(keys)
        return answer(self.config_now())


class Mutation:
    """Ops of `/_emulator/mutate`, applied in order to one transaction, or to several of so many rows."""

    def __init__(self, store, per_transaction):
        self.store = store
        self.per_transaction = per_transaction
        self.tx = store.transaction()
        self.ids = []

    def apply(self, op):
        apply = getattr(self, "op_" + str(op.get("op")), None)
        if apply is None:
            raise Refused(f"unknown op {op.get('op')!r}")
        apply(op)

    def finish(self):
        return self.tx.commit() or self.store.head()

    def _row_done(self):
        if self.per_transaction and self.tx.write_count >= self.per_transaction:
            self.tx.commit()
            self.tx = self.store.transaction()

    def _table(self, op, create=False, number=None):
        """`number` is the one that a new table takes."""
        component, name = op.get("component", ""), op["table"]
        if create:
            self.tx.component(component, create=True)
        if name in VIRTUAL_TABLES:
            return self.store.virtual_table(component, name)
        tablet = self.tx.table(component, name, create, number)
        if tablet is None:
            raise Refused(f"no table {name!r} in component {component!r}")
        return tablet

    def _hidden(self, op):
        """The tablet that an import under way fills."""
        place = op.get("component", ""), op["table"]
        found = [tablet for tablet in self.store.tablets.values()
                 if (tablet.component, tablet.name) == place and tablet.state == HIDDEN]
        if not found:
            raise Refused(f"no import into table {place[1]!r} is under way")
        return found[-1]

    def _fields(self, op):
        fields = values.from_encoded(op.get("doc", {}))
        if not isinstance(fields, dict):
            raise Refused("doc must be an object")
        return fields

    def _existing(self, op):
        tablet = self._table(op)
        decoded = values.decode_id(op["id"])
        before = self.tx.get(tablet, decoded[1]) if decoded and decoded[0] == tablet.number else None
        if before is None:
            raise Refused(f"no document {op['id']!r} in {tablet.name!r}")
        return tablet, decoded[1], before

    def op_insert(self, op):
        fields = self._fields(op)
        number, internal = values.decode_id(fields.get("_id")) or (None, None)
        tablet = self._hidden(op) if op.get("hidden") else self._table(op, create=True, number=number)
        if "_id" in fields:
            if number != tablet.number:
                raise Refused(f"{fields['_id']!r} is no id of {tablet.name!r} (table number {tablet.number})")
            if tablet.revisions.get(internal) or self.tx.get(tablet, internal):
                raise Refused(f"{fields['_id']!r} is or was in use")
        internal = self.tx.insert(tablet, fields, internal, fields.get("_creationTime"))
        self.ids.append(tablet.id_text(internal))
        self._row_done()

    def op_patch(self, op):
        tablet, internal, before = self._existing(op)
        self.tx.replace(tablet, internal, before, {**before, **self._fields(op)})
        self._row_done()

    def op_replace(self, op):
        tablet, internal, before = self._existing(op)
        self.tx.replace(tablet, internal, before, self._fields(op))
        self._row_done()

    def op_delete(self, op):
        tablet, internal, _ = self._existing(op)
        self.tx.delete(tablet, internal)
        self._row_done()

    def op_create_table(self, op):
        self._table(op, create=True)

    def op_drop_table(self, op):
        self.tx.drop(self._table(op))

    def op_update_all(self, op):
        self._each(op, lambda document: self._fields(op))

    def op_increment_all(self, op):
        name, by = op["field"], op.get("by", 1)

        def change(document):
            number = document.get(name, 0.0)
            return {name: number + (int(by) if type(number) is int else float(by))}
        self._each(op, change)

    def op_delete_all(self, op):
        tablet = self._table(op)
        for internal, _ in list(tablet.live()):
            self.tx.delete(tablet, internal)
            self._row_done()

    def op_index(self, op):
        """A hidden index as an import route makes it, but ready at once unless `ready` is false."""
        name = {"fivetran": tables.FIVETRAN_KEY, "airbyte": tables.AIRBYTE_KEY}[op.get("route", "fivetran")]
        tablet = self._table(op, create=True)
        fields = tuple(tables.check_index_path(path.split(".")) for path in op["fields"])
        tables.check_user_index(fields)
        index = tables.Index(fields, time.monotonic_ns())
        index.is_ready = op.get("ready", True)
        self.tx.add_index(tablet, name, index)

    def op_system(self, op):
        self.tx.system_rows += op.get("count", 1)

    def _each(self, op, change):
        tablet = self._table(op)
        for internal, revision in list(tablet.live()):
            document = self.tx.get(tablet, internal)
            if document is not None:
                self.tx.replace(tablet, internal, document, {**document, **change(document)})
                self._row_done()
