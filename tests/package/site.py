"""The machines of a test site: a Modbus TCP server, and a card that is held to vpcd's reader.

    site.py machines            a relay board (unit 1) and an SDM120 behind its relay 1 (unit 11)
    site.py tap UID             holds a MIFARE Classic 1K to the first virtual reader
    site.py allowlist UID...    prints the head of an allowlist, version 1, of users u-1, u-2, ...
    site.py parts COUNT FOLDER  writes one of COUNT badges: its head, and its one part in chunks

`machines` keeps /run/site/coil-N (0 or 1), appends every change of a coil to /run/site/changes, and
draws no power while /run/site/idle exists.
"""

import base64
import hashlib
import json
import os
import socket
import socketserver
import struct
import sys
import time

PORT, READER = 1502, 35963
FOLDER = "/run/site"
WATTS = 40_000
ATR = bytes.fromhex("3B8F8001804F0CA000000306030001000000006A")
HELD_S = 2.0
CHUNK = 45 * 1024


class Site:
    coils = [False] * 8
    wh = 12_346.0
    since = time.monotonic()

    @classmethod
    def watts(cls):
        return WATTS if cls.coils[0] and not os.path.exists(f"{FOLDER}/idle") else 0

    @classmethod
    def count(cls):
        now = time.monotonic()
        cls.wh += cls.watts() * (now - cls.since) / 3600
        cls.since = now

    @classmethod
    def switch(cls, coil, on):
        cls.count()
        if cls.coils[coil] != on:
            with open(f"{FOLDER}/changes", "a") as changes:
                changes.write(f"{coil} {int(on)}\n")
        cls.coils[coil] = on
        with open(f"{FOLDER}/coil-{coil}", "w") as state:
            state.write(f"{int(on)}\n")


def registers(address, count):
    Site.count()
    table = {12: struct.pack(">f", Site.watts()), 72: struct.pack(">f", Site.wh / 1000),
             0xFC00: struct.pack(">I", 4711)}
    data = bytearray(2 * count)
    for start, value in table.items():
        for offset in range(2):
            at = start + offset - address
            if 0 <= at < count:
                data[2 * at:2 * at + 2] = value[2 * offset:2 * offset + 2]
    return bytes([2 * count]) + bytes(data)


def answer(unit, pdu):
    function, first, second = pdu[0], *struct.unpack(">HH", pdu[1:5])
    if unit == 1 and function in (1, 2):
        bits = Site.coils if function == 1 else [False] * 8
        chosen = bits[first:first + second]
        return bytes([function, 1, sum(on << i for i, on in enumerate(chosen))])
    if unit == 1 and function == 5:
        Site.switch(first, second == 0xFF00)
        return pdu
    if unit == 11 and function in (3, 4):
        return bytes([function]) + registers(first, second)
    return bytes([function | 0x80, 1])


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        while header := self.rfile.read(7):
            transaction, _, length, unit = struct.unpack(">HHHB", header)
            reply = answer(unit, self.rfile.read(length - 1))
            self.wfile.write(struct.pack(">HHHB", transaction, 0, len(reply) + 1, unit) + reply)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def machines():
    os.makedirs(FOLDER, exist_ok=True)
    Site.switch(0, False)
    Server(("127.0.0.1", PORT), Connection).serve_forever()


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            sys.exit(0)
        data += piece
    return data


def tap(uid):
    with socket.create_connection(("127.0.0.1", READER), timeout=HELD_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + HELD_S
        try:
            while time.monotonic() < end:
                length, = struct.unpack(">H", exactly(connection, 2))
                message = exactly(connection, length)
                if length == 1 and message[0] != 4:
                    continue
                reply = ATR if length == 1 else b"\x6a\x81"
                if message[:3] == b"\xff\xca\x00":
                    reply = uid + b"\x90\x00"
                connection.sendall(struct.pack(">H", len(reply)) + reply)
        except TimeoutError:
            pass


def canonical(entry):
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def entries_of(uids):
    entry = {"origin": "issued", "status": "active", "grants": ["group:laundry"]}
    return [{"badge": f"b-{n}", "uid": uid.upper(), "user": f"u-{n}", **entry}
            for n, uid in enumerate(sorted(uids, key=bytes.fromhex), 1)]


def head(entries, content):
    digest = hashlib.sha256(b"".join(hashlib.sha256(canonical(e)).digest() for e in entries))
    return json.dumps({"list": "0192f0c1-0000-7000-8000-000000000001", "version": 1,
                       "count": len(entries), "digest": digest.hexdigest(),
                       "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **content})


def allowlist(uids):
    entries = entries_of(uids)
    print(head(entries, {"entries": entries}))


def parts(count, folder):
    entries = entries_of(f"04{n:06X}" for n in range(1, count + 1))
    part = b"".join(canonical(entry) + b"\n" for entry in entries)
    sha256 = hashlib.sha256(part).hexdigest()
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/head.json", "w") as file:
        file.write(head(entries, {"parts": [{"sha256": sha256, "bytes": len(part)}]}))
    chunks = [part[at:at + CHUNK] for at in range(0, len(part), CHUNK)]
    for i, chunk in enumerate(chunks):
        with open(f"{folder}/chunk-{i}.json", "w") as file:
            data = base64.b64encode(chunk).decode()
            json.dump({"sha256": sha256, "i": i, "n": len(chunks), "data": data}, file)


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "machines":
        machines()
    elif verb == "tap":
        tap(bytes.fromhex(rest[0]))
    elif verb == "allowlist":
        allowlist(rest)
    elif verb == "parts":
        parts(int(rest[0]), rest[1])
    else:
        sys.exit(__doc__)
