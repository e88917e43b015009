"""The rows of the benchmark that concern subscriptions.

Changes are half updates, a quarter inserts and a quarter deletes, of distinct
documents. A page is one transaction, on both sides, unless --transaction says
how many changes are one. All are complete on the source's side (log or WAL)
before the clock starts.
"""

import base64
import contextlib
import csv
import json
import os
import pathlib
import random
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

import harness
from measure import Session, compare, show, timed_command

ROUND_TRIP_MS = 20
CHUNK = 16384               # changes of one request to the emulator; a multiple of each transaction
TIMEOUT = 900

# The mirror's table, for the publisher and the subscriber.
TABLE = """CREATE TABLE bench (_id text COLLATE "C" PRIMARY KEY, "_creationTime" timestamptz, active boolean,
    amount double precision, count bigint, name text, note text, parent text COLLATE "C", _ts bigint, _extra jsonb);
    CREATE TABLE mark (round integer)"""
COLUMNS = '_id, "_creationTime", active, amount, count, name, note, parent'

CHANGE = """CREATE UNLOGGED TABLE change (n integer PRIMARY KEY, kind text, _id text, created double precision,
    active boolean, amount double precision, count bigint, name text, note text, parent text)"""

# Row by row, as a client would; COMMIT after so many, then the mark.
REPLAY = """
CREATE PROCEDURE replay(per_transaction integer, round integer) LANGUAGE plpgsql AS $$
DECLARE
    c change;
BEGIN
    FOR c IN SELECT * FROM change ORDER BY n LOOP
        CASE c.kind
        WHEN 'update' THEN
            UPDATE bench SET amount = c.amount, note = c.note, _ts = c.n WHERE _id = c._id;
        WHEN 'delete' THEN
            DELETE FROM bench WHERE _id = c._id;
        ELSE
            INSERT INTO bench VALUES (c._id, to_timestamp(c.created / 1000), c.active, c.amount, c.count, c.name,
                c.note, c.parent, c.n);
        END CASE;
        IF c.n % per_transaction = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
    COMMIT;
    INSERT INTO mark VALUES (round);
END $$
"""


def first_load(options, session, scratch, emulator, download):
    """A mirror of the table from its pages / COPY of the mirror's rows, then its key; and with prefetch / without."""
    file = scratch / "mirror.csv"

    def load():
        session.ask("SELECT convex_create_subscription('load', 'bench', '{bench}')")
        return session.timed("CALL convex_sync('load')")

    def drop():
        session.ask("SELECT convex_drop_subscription('load', true)")

    def copy():
        session.ask("DROP TABLE IF EXISTS copied; CREATE TABLE copied (LIKE shape)")
        return (session.timed(f"COPY copied FROM '{file}' (FORMAT csv)")
                + session.timed("ALTER TABLE copied ADD PRIMARY KEY (_id)"))

    def load_and_drop():
        taken = load()
        rows = int(session.ask("SELECT count(*) FROM load.bench")[0])
        if rows != options.documents:
            sys.exit(f"the mirror has {rows} rows")
        drop()
        return taken

    # The first walk makes the pages and is not counted.
    load()
    session.ask("CREATE TABLE shape (LIKE load.bench)")
    session.ask(f"\\copy load.bench TO '{file}' (FORMAT csv)")
    file.chmod(0o644)
    drop()
    mine, other = compare(options.rounds, load_and_drop, copy)
    show("first load / COPY of local CSV, then key", mine, other, f"{mine / other:.2f}", "<= 1.0, aim 0.75")
    session.ask("DROP TABLE copied, shape")

    # A server that takes as long for a page as its insertion takes, with what it takes anyway.
    timed_command(*download)
    latency_ms = 1000 * (mine - timed_command(*download)) / -(-options.documents // 1024)
    emulator.control("config", {"extra_latency_ms": latency_ms})

    def load_with(setting):
        session.ask(f"SET convex_fdw.prefetch = {setting}")
        return load_and_drop()

    mine, other = compare(options.rounds, lambda: load_with("on"), lambda: load_with("off"))
    session.ask("RESET convex_fdw.prefetch")
    emulator.control("config", {"extra_latency_ms": 0})
    show(f"load with prefetch / without, {latency_ms:.1f} ms a page", mine, other, f"{mine / other:.2f}", "<= 0.65, aim 0.55")


def changes(options, session, scratch, key):
    """Pages of changes into a mirror / logical replication of the same changes; then a slow line."""
    with contextlib.ExitStack() as stack:
        emulator = Emulator(stack.enter_context(harness.emulator("--seed", f"bench:{2 * options.changes}")), key)
        publisher = stack.enter_context(publishing_cluster())
        pair = Pair(session, emulator, publisher, scratch)
        for page, goal in ((1024, ">= 1.4x, aim 1.7x"), (16384, ">= 1.8x, aim 2.5x")):
            transaction = options.transaction or page
            mine, other = compare(options.rounds, lambda: pair.follow(options.changes, page, transaction),
                                  lambda: pair.replicate(transaction))
            show(f"{page}-change pages / logical replication", mine, other, f"{other / mine:.2f}x", goal)
        pair.compare_tables()

        def ours():
            return pair.follow(64 * 128, 128, 128, latency_ms=ROUND_TRIP_MS)

        def line():
            return len(emulator.requests()) * ROUND_TRIP_MS / 1000

        mine, other = compare(options.rounds, ours, line)
        show(f"128-change pages, {ROUND_TRIP_MS} ms / requests x {ROUND_TRIP_MS} ms", mine, other,
             f"{mine / other:.2f}", "<= 1.15")
        pair.close()


class Emulator:
    """What the benchmark asks of an emulator besides its pages."""

    def __init__(self, url, key):
        self.url = url
        self.key = key

    def ask(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method, headers={
            "Authorization": f"Convex {self.key}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.read()

    def control(self, path, body=None, method=None):
        return json.loads(self.ask("/_emulator/" + path, body, method))

    def forget_requests(self):
        self.control("journal", method="DELETE")

    def requests(self):
        return [request for request in self.control("journal")["requests"] if request["path"].startswith("/api/")]

    def walk_deltas(self, body, cursor):
        """Asks for every page after a cursor, so that all are made; gives their number."""
        pages = 0
        more = True
        while more:
            tail = self.ask("/api/document_deltas", {**body, "cursor": cursor})[-80:]
            found = re.search(rb'"cursor":(\d+),"hasMore":(true|false)}$', tail)
            cursor, more = int(found[1]), found[2] == b"true"
            pages += 1
        return pages


@contextlib.contextmanager
def publishing_cluster():
    """A second cluster, with wal_level = logical; gives the environment of its clients."""
    own = pathlib.Path(tempfile.mkdtemp(prefix="convex_fdw.", dir="/tmp"))
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
            conf.write("wal_level = logical\n")
            conf.flush()
            subprocess.run([harness.CLUSTER, "start", "--conf", conf.name, own], check=True)
        lines = subprocess.run([harness.CLUSTER, "env", own], check=True, stdout=subprocess.PIPE, text=True).stdout
        words = (word.partition("=") for word in shlex.split(lines))
        yield {**os.environ, **{name: value for name, _, value in words if value and name != "PATH"}}
    finally:
        subprocess.run([harness.CLUSTER, "remove", own], check=False)


class Pair:
    """One table with the same changes in two places: mirrored from Convex, and replicated from PostgreSQL."""

    def __init__(self, session, emulator, publisher, scratch):
        self.session = session
        self.emulator = emulator
        self.file = scratch / "changes.csv"
        self.random = random.Random(7)
        self.round = 0
        self.created = 1760000000000
        self.source = Session(publisher)
        self.connection = "host={PGHOST} port={PGPORT} user={PGUSER} dbname={PGDATABASE}".format_map(publisher)

        session.ask(f"CREATE SERVER changes FOREIGN DATA WRAPPER convex_fdw OPTIONS (deployment_url '{emulator.url}')")
        session.ask(f"CREATE USER MAPPING FOR CURRENT_USER SERVER changes OPTIONS (deploy_key '{emulator.key}')")
        session.ask("SELECT convex_create_subscription('mirror', 'changes', '{bench}')")
        session.ask("CALL convex_sync('mirror')")
        self.request = [request["body"] for request in emulator.requests()
                        if request["path"] == "/api/document_deltas"][-1]
        self.ids = session.ask("SELECT _id FROM mirror.bench ORDER BY _id")

        initial = scratch / "initial.csv"
        session.ask(f"\\copy (SELECT {COLUMNS}, _ts FROM mirror.bench) TO '{initial}' (FORMAT csv)")
        session.ask("CREATE SCHEMA native; SET search_path = public, native")
        session.ask(TABLE.replace("TABLE ", "TABLE native."))
        self.source.ask(TABLE)
        self.source.ask(CHANGE)
        self.source.ask(REPLAY)
        # Logical replication goes by the name of schema and table.
        self.source.ask("CREATE SCHEMA native; ALTER TABLE bench SET SCHEMA native; ALTER TABLE mark SET SCHEMA native")
        self.source.ask("SET search_path = public, native")
        self.source.ask("CREATE PUBLICATION bench FOR TABLE native.bench, native.mark")
        for side in (self.source, session):
            side.ask(f"\\copy native.bench ({COLUMNS}, _ts) FROM '{initial}' (FORMAT csv)")
            side.ask("VACUUM (ANALYZE) native.bench")
            side.ask("ALTER TABLE native.bench SET (autovacuum_enabled = false)")
        session.ask("ALTER TABLE mirror.bench SET (autovacuum_enabled = false)")
        # PostgreSQL starts one apply worker per interval; five seconds would be part of the time.
        session.ask("ALTER SYSTEM SET wal_retrieve_retry_interval = '1ms'")
        session.ask("SELECT pg_reload_conf()")

    def follow(self, count, page, transaction, latency_ms=0):
        """Makes new changes in the emulator and applies them; gives the seconds of the latter."""
        self.emulator.control("config", {"delta_limit": page})
        self._change_source(count, transaction)
        cursor = int(self.session.ask("SELECT applied_ts FROM convex_stat_subscription WHERE name = 'mirror'")[0])
        pages = self.emulator.walk_deltas(self.request, cursor)
        if pages != -(-count // page):
            sys.exit(f"{count} changes are {pages} pages")
        self.session.ask("VACUUM mirror.bench")
        self.emulator.control("config", {"extra_latency_ms": latency_ms})
        self.emulator.forget_requests()
        taken = self.session.timed("CALL convex_sync('mirror')")
        self.emulator.control("config", {"extra_latency_ms": 0})
        return taken

    def replicate(self, transaction):
        """Makes the changes of the last `follow` in the publisher and replicates them; the seconds of the latter."""
        self.round += 1
        self.session.ask("VACUUM native.bench")
        self.session.ask(f"CREATE SUBSCRIPTION native CONNECTION '{self.connection}' PUBLICATION bench "
                         "WITH (copy_data = false, enabled = false)")
        self.source.ask("VACUUM native.bench; TRUNCATE change")
        self.source.ask(f"\\copy change FROM '{self.file}' (FORMAT csv)")
        self.source.ask(f"CALL replay({transaction}, {self.round})")
        begun = time.perf_counter()
        self.session.ask("ALTER SUBSCRIPTION native ENABLE")
        while self.session.ask(f"SELECT 1 FROM native.mark WHERE round = {self.round}") == []:
            if time.perf_counter() - begun > TIMEOUT:
                sys.exit("logical replication does not catch up")
            time.sleep(0.002)
        taken = time.perf_counter() - begun
        self.session.ask("DROP SUBSCRIPTION native")
        return taken

    def compare_tables(self):
        different = self.session.ask(
            f"SELECT (SELECT count(*) FROM (SELECT {COLUMNS} FROM mirror.bench EXCEPT SELECT {COLUMNS} FROM native.bench) a), "
            f"(SELECT count(*) FROM (SELECT {COLUMNS} FROM native.bench EXCEPT SELECT {COLUMNS} FROM mirror.bench) b)")[0]
        if different != "0|0":
            sys.exit(f"the sides differ in {different} rows")

    def _change_source(self, count, transaction):
        """Changes the emulator's documents, and writes the same changes into the file for the publisher."""
        kinds = ["update", "insert", "update", "delete"] * (count // 4)
        old = iter(self.random.sample(self.ids, count * 3 // 4))
        rows = []
        for n, kind in enumerate(kinds, 1):
            amount = self.random.randrange(1 << 20) / 8
            if kind == "update":
                rows.append([n, kind, next(old), None, None, amount, None, None, f"round note {n}", None])
            elif kind == "delete":
                rows.append([n, kind, next(old)] + [None] * 7)
            else:
                self.created += 1
                rows.append([n, kind, None, self.created, n % 3 == 0, amount, n * 7, f"New item {n}", f"note {n}",
                             self.ids[n % 1000]])
        for first in range(0, count, CHUNK):
            part = rows[first:first + CHUNK]
            new = self.emulator.control("mutate", {"ops": [operation(row) for row in part],
                                                   "rows_per_transaction": transaction})["ids"]
            for row, id in zip((row for row in part if row[1] == "insert"), new, strict=True):
                row[2] = id
        gone = {row[2] for row in rows if row[1] == "delete"}
        self.ids = [id for id in self.ids if id not in gone] + [row[2] for row in rows if row[1] == "insert"]
        with open(self.file, "w", newline="") as file:
            csv.writer(file).writerows(rows)

    def close(self):
        self.session.ask("SELECT convex_drop_subscription('mirror', true)")
        self.session.ask("DROP SCHEMA native CASCADE")
        self.session.ask("ALTER SYSTEM RESET wal_retrieve_retry_interval")
        self.session.ask("SELECT pg_reload_conf()")
        self.source.close()


def operation(row):
    """A change as the emulator's `mutate` takes it."""
    _, kind, id, created, active, amount, count, name, note, parent = row
    if kind == "delete":
        return {"op": "delete", "table": "bench", "id": id}
    if kind == "update":
        return {"op": "patch", "table": "bench", "id": id, "doc": {"amount": amount, "note": note}}
    return {"op": "insert", "table": "bench", "doc": {
        "_creationTime": float(created), "active": active, "amount": amount,
        "count": {"$integer": base64.b64encode(struct.pack("<q", count)).decode()},
        "name": name, "note": note, "parent": parent}}
