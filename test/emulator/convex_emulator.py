#!/usr/bin/env python3
"""Convex over HTTP: an emulated deployment to try clients against. See README.md."""

import argparse
import os
import signal
import ssl
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import emulator as emulators    # noqa: E402
from server import Server    # noqa: E402


def parse_arguments(argv):
    parser = argparse.ArgumentParser(prog="convex_emulator.py", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one and prints it")
    parser.add_argument("--port-file", metavar="F", help="the port is written to this file, too")
    parser.add_argument("--admin-key", action="append", default=[], metavar="KEY",
                        help=f"may be given several times; default {emulators.DEFAULT_ADMIN_KEY}")
    parser.add_argument("--read-only-key", action="append", default=[], metavar="KEY",
                        help=f"default {emulators.DEFAULT_READ_ONLY_KEY}")
    parser.add_argument("--seed", help="none, demo, bench:N, bench:N:narrow or bench:N:wide; default demo, "
                        "or none with --backup")
    parser.add_argument("--backup", metavar="ZIP", help="load a backup made by `npx convex export`")
    parser.add_argument("--backup-component", default="", metavar="PATH", help="load it into this component")
    parser.add_argument("--tls-cert", metavar="F")
    parser.add_argument("--tls-key", metavar="F")
    parser.add_argument("--page-limit", type=int, default=1024, help="documents a page of list_snapshot")
    parser.add_argument("--delta-limit", type=int, default=128, help="log rows a page of document_deltas")
    parser.add_argument("--random-seed", type=int, help="the same ids every time")
    parser.add_argument("--journal-limit", type=int, default=100_000, help="requests kept in the journal")
    parser.add_argument("--cache-mb", type=int, default=2048, help="memory for prepared pages")
    parser.add_argument("--exit-with-stdin", action="store_true", help="exit when standard input is closed")
    return parser.parse_args(argv)


def tls_context(options):
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def write_port_file(path, port):
    with open(path + ".new", "w") as file:
        file.write(f"{port}\n")
    os.replace(path + ".new", path)


def follow_stdin(stop):
    while os.read(0, 65536):
        pass
    stop.set()


def main(argv=None):
    options = parse_arguments(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    emulator = emulators.Emulator(options.admin_key, options.read_only_key, options.page_limit,
                                  options.delta_limit, options.random_seed, options.journal_limit,
                                  options.cache_mb << 20)
    if options.backup:
        emulator.load_backup(options.backup, options.backup_component)
    emulator.seed(options.seed or ("none" if options.backup else "demo"))
    server = Server(emulator.handle, emulator.faults.on_accept, emulator.store.now_ns, tls_context(options))
    port = server.listen(options.host, options.port)
    server.start()
    if options.port_file:
        write_port_file(options.port_file, port)
    scheme = "https" if options.tls_cert else "http"
    print(f"listening on {scheme}://{options.host}:{port}", flush=True)
    if options.exit_with_stdin:
        threading.Thread(target=follow_stdin, args=(stop,), daemon=True).start()
    stop.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
