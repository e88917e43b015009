"""Following an import over the WebSocket, as `npx convex import` does."""

import json
import os
import socket
import struct
import unittest

from emulator import DEFAULT_ADMIN_KEY
from testing import EmulatorTest


class Client:
    def __init__(self, port, path="/api/1.31.0/sync"):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.file = self.sock.makefile("rb")
        self.version = {"querySet": 0, "identity": 0}
        self.sock.sendall((f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        self.status = self.file.readline()
        self.headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(self.file.readline, b"\r\n"))

    def send_frame(self, data, opcode=1, is_last=True):
        mask = os.urandom(4)
        size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data))
        self.sock.sendall(bytes([(0x80 if is_last else 0) | opcode]) + size + mask
                          + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def send(self, **message):
        self.send_frame(json.dumps(message).encode())

    def frame(self):
        first, size = self.file.read(2)
        if size == 126:
            size, = struct.unpack(">H", self.file.read(2))
        return first & 0x0f, self.file.read(size)

    def receive(self):
        """The next message; a transition must start where the last one ended."""
        message = json.loads(self.frame()[1])
        if message["type"] == "Transition":
            start = message["startVersion"]
            assert {name: start[name] for name in self.version} == self.version, (start, self.version)
            self.version = {name: message["endVersion"][name] for name in self.version}
        return message

    def authenticate(self, key=DEFAULT_ADMIN_KEY):
        self.send(type="Authenticate", tokenType="Admin", value=key, baseVersion=self.version["identity"])
        return self.receive()

    def follow(self, *paths, args=None):
        number = self.version["querySet"]
        self.send(type="ModifyQuerySet", baseVersion=number, newVersion=number + 1, modifications=[
            {"type": "Add", "queryId": at, "udfPath": path, "args": [args or {}]} for at, path in enumerate(paths)])
        return self.receive()["modifications"]


class LiveQueries(EmulatorTest):

    def client(self):
        client = Client(self.port)
        self.addCleanup(client.file.close)
        self.addCleanup(client.sock.close)
        self.assertEqual(client.status, b"HTTP/1.1 101 Switching Protocols\r\n")
        self.assertEqual(client.headers["sec-websocket-accept"].lower(), "s3pplmbitxaq9kygzzhzrbk+xoo=")
        client.send(type="Connect", sessionId="x", connectionCount=0, lastCloseReason=None, clientTs=0)
        return client

    def test_an_import_is_followed_to_its_end(self):
        client = self.client()
        self.assertEqual(client.authenticate()["endVersion"]["identity"], 1)
        token = self.post("/api/import/start_upload", {}).json()["uploadToken"]
        self.request("POST", f"/api/import/upload_part?uploadToken={token}&partNumber=1", b'{"a":1}')
        work = self.post("/api/import/finish_upload", {
            "import": {"tableName": "t", "mode": "append", "format": "jsonLines"}, "uploadToken": token,
            "partTokens": [""]}).json()["importId"]
        change, = client.follow("_system/cli/queryImport", args={"importId": work})
        while change["value"]["state"]["state"] == "uploaded":
            change, = client.receive()["modifications"]
        self.assertEqual((change["type"], change["value"]["state"]["state"]), ("QueryUpdated", "waiting_for_confirmation"))
        self.post("/api/perform_import", {"importId": work})
        while change["value"]["state"]["state"] != "completed":
            change, = client.receive()["modifications"]
        self.assertEqual(change["value"]["state"]["num_rows_written"], {"$integer": "AQAAAAAAAAA="})
        client.send_frame(b"", opcode=8)
        self.assertEqual(client.frame()[0], 8)

    def test_what_does_not_change_is_told_once(self):
        client = self.client()
        client.authenticate()
        self.assertEqual([change["value"] for change in client.follow("_system/cli/queryImport:list")], [[]])
        self.insert("t", {"a": 1})
        client.send_frame(b"are you there", opcode=9)
        self.assertEqual(client.frame(), (10, b"are you there"))

    def test_without_a_key_it_is_refused(self):
        client = self.client()
        change, = client.follow("_system/cli/queryImport:list")
        self.assertEqual(change["type"], "QueryFailed")
        self.assertIn("Operation query not permitted", change["errorMessage"])
        self.assertEqual(client.authenticate("nonsense")["type"], "AuthError")
        change, = client.authenticate()["modifications"]
        self.assertEqual(change["type"], "QueryUpdated")
        client.send(type="Mutation", requestId=7, udfPath="a:b", args=[{}])
        answer = client.receive()
        self.assertEqual((answer["type"], answer["requestId"], answer["success"]), ("MutationResponse", 7, False))

    def test_a_message_in_pieces(self):
        client = self.client()
        text = json.dumps({"type": "Authenticate", "tokenType": "Admin", "value": DEFAULT_ADMIN_KEY, "baseVersion": 0,
                           "padding": "x" * 300}).encode()
        client.send_frame(text[:200], is_last=False)
        client.send_frame(text[200:], opcode=0)
        self.assertEqual(client.receive()["type"], "Transition")

    def test_a_plain_request_is_refused(self):
        self.assertEqual(self.get("/api/sync").status, 400)
        self.assertEqual(self.post("/api/sync", {}).status, 405)


if __name__ == "__main__":
    unittest.main()
