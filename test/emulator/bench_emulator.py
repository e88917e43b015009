#!/usr/bin/env python3
"""Prints how fast the emulator answers: repeated pages of `bench`, read by a client that keeps nothing.

The client is this process; it counts bytes and reads the cursor from the end of every page.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KEY = "prod:happy-otter-123|0123456789abcdef"


class Client:
    """Just enough HTTP to pull pages: the body lands in one buffer that is used again."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.buffer = bytearray(8 << 20)

    def post(self, path, body):
        """(length of the body, its last 300 bytes)"""
        text = json.dumps(body).encode()
        self.sock.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Convex %s\r\n"
                          b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                          % (path.encode(), KEY.encode(), len(text), text))
        view = memoryview(self.buffer)
        filled = head = total = 0
        while not total or filled < total:
            filled += self.sock.recv_into(view[filled:])
            if not total:
                head = self.buffer.find(b"\r\n\r\n", 0, filled)
                if head >= 0:
                    start = self.buffer.find(b"content-length: ", 0, head) + 16
                    length = int(self.buffer[start:self.buffer.find(b"\r\n", start, head + 2)])
                    total = head + 4 + length
        return total - head - 4, bytes(self.buffer[max(head + 4, total - 300):total])


def walk(client, table):
    """One list_snapshot walk: (bytes, pages)."""
    body = {"tableName": table, "format": "convex_encoded_json"}
    size = pages = 0
    while True:
        length, tail = client.post("/api/list_snapshot", body)
        size, pages = size + length, pages + 1
        end = json.loads(b"{" + tail[tail.rindex(b'"snapshot":'):])
        if not end["hasMore"]:
            return size, pages
        body["snapshot"], body["cursor"] = end["snapshot"], end["cursor"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--width", choices=("narrow", "wide"), default="narrow")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    started = time.perf_counter()
    emulator = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "convex_emulator.py"), "--exit-with-stdin",
         "--seed", f"bench:{options.documents}:{options.width}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(emulator.stdout.readline().rsplit(":", 1)[1])
        print(f"ready after {time.perf_counter() - started:.2f} s")
        client = Client(port)
        table = "bench_wide" if options.width == "wide" else "bench"
        speeds = []
        for number in range(options.rounds + 1):
            began = time.perf_counter()
            size, pages = walk(client, table)
            took = time.perf_counter() - began
            what = "first walk, pages are made" if number == 0 else "pages from the cache"
            print(f"{size / took / 1e9:6.2f} GB/s  {pages / took:8.0f} pages/s  {size / pages / 1000:.0f} kB a page"
                  f"  ({what})")
            speeds.append(size / took / 1e9)
        print(f"median of repeated walks: {sorted(speeds[1:])[options.rounds // 2]:.2f} GB/s")
    finally:
        emulator.stdin.close()
        emulator.wait()


if __name__ == "__main__":
    main()
