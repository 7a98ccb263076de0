#!/usr/bin/env python3
"""A cloud in miniature: takes the usage of tapgate gateways, as docs/cloud-protocol.md has it.

    MQTT_PASSWORD=... consumer.py run usage.db mqtts://cloud@broker.example:8883
    consumer.py verify usage.db

It stores before it acknowledges, counts each record once by (gateway, epoch, seq), checks the
chain of hashes and the accounts of every meter, keeps what it does not understand in quarantine and
acknowledges it all the same. Needs paho-mqtt 2, and cryptography for --sign-key: a file with the 32
bytes of an Ed25519 key in base64url.
"""
import argparse, base64, hashlib, json, os, sqlite3, sys, time
from collections import defaultdict
from itertools import groupby
from urllib.parse import urlsplit

from accounts import Accounts

ORIGIN = b"\0" * 32


def chain(last, record):
    return hashlib.sha256(b"tapgate-ledger-1" + last + record.encode()).digest()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Store:
    """Every record once, with its hash. What is committed survives a power cut."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.executescript("""
            PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS record (id INTEGER PRIMARY KEY, gw TEXT, epoch TEXT,
                seq INTEGER, hash BLOB, bytes TEXT, UNIQUE (gw, epoch, seq));
            CREATE TABLE IF NOT EXISTS quarantine (gw TEXT, epoch TEXT, seq INTEGER, why TEXT,
                PRIMARY KEY (gw, epoch, seq));""")
        self.accounts = defaultdict(Accounts)
        for row in self.db.execute("SELECT gw, epoch, seq, bytes FROM record ORDER BY id"):
            self.count(*row)

    def one(self, sql, *values):
        row = self.db.execute(sql, values).fetchone()
        return row and row[0]

    def hash(self, gw, epoch, seq):
        sql = "SELECT hash FROM record WHERE gw = ? AND epoch = ? AND seq = ?"
        return self.one(sql, gw, epoch, seq) if seq else ORIGIN

    def upto(self, gw, epoch):
        """Records of an epoch are stored without gaps, so the last says it all."""
        return self.one("SELECT max(seq) FROM record WHERE gw = ? AND epoch = ?", gw, epoch) or 0

    def receive(self, gw, batch):
        """Stores what is new; raises ValueError where the batch contradicts what is held."""
        epoch, first, records = batch["epoch"], batch["first"], batch["records"]
        if first < 1 or batch["last"] != first + len(records) - 1:
            raise ValueError(f"batch {first} miscounts")
        last = self.hash(gw, epoch, first - 1)
        if last is None:
            return                          # early: what lies between comes again
        if last.hex() != batch["prev"]:
            raise ValueError(f"batch {first} does not follow what is held")
        new = []
        for seq, record in enumerate(records, first):
            last, held = chain(last, record), self.hash(gw, epoch, seq)
            if held not in (None, last):
                raise ValueError(f"record {seq} came with other bytes: page a human")
            if held is None:
                new.append((gw, epoch, seq, record, last))
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT INTO record (gw, epoch, seq, bytes, hash) VALUES (?, ?, ?, ?, ?)", new)
        self.db.execute("COMMIT")           # synchronous: only now may it be acknowledged
        for *record, _ in new:
            self.count(*record)

    def count(self, gw, epoch, seq, text):
        try:
            record = json.loads(text)
            if record["seq"] != seq:
                raise KeyError("its seq is another")
            held = lambda e, s, h: self.hash(gw, e, s) == bytes.fromhex(h)
            self.accounts[gw].post(epoch, record, held)
        except (ValueError, KeyError, TypeError, AttributeError) as why:
            self.db.execute("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)",
                            (gw, epoch, seq, repr(why)))

    def verify(self):
        """Recomputes every chain from the records' bytes: gateway by gateway, what is wrong."""
        report = {}
        for gw, accounts in self.accounts.items():
            faults, count = [], 0
            rows = self.db.execute(
                "SELECT epoch, seq, hash, bytes FROM record WHERE gw = ? ORDER BY epoch, seq", (gw,))
            for epoch, records in groupby(rows, lambda row: row[0]):
                last = ORIGIN
                for number, (_, seq, held, record) in enumerate(records, 1):
                    last, count = chain(last, record), count + 1
                    if (seq, held) != (number, last):
                        faults.append(f"chain breaks at {epoch} {seq}")
            quarantined = self.one("SELECT count(*) FROM quarantine WHERE gw = ?", gw)
            report[gw] = {"records": count, "faults": faults, "users_wh": dict(accounts.users),
                          "imbalances": accounts.imbalances(), "quarantined": quarantined}
        return report


class Consumer:
    """The broker's side: subscribes to usage, publishes acknowledgements."""

    def __init__(self, store, sign_key):
        self.store, self.issued, self.key = store, 0, None
        if sign_key:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            seed = base64.urlsafe_b64decode(open(sign_key).read().strip() + "=")
            self.key = Ed25519PrivateKey.from_private_bytes(seed)

    def on_connect(self, client, *_):
        client.subscribe("tapgate/1/+/up/usage", qos=1)
        # The broker may have lost what it retained; the last epoch of a gateway comes last.
        for gw, epoch in self.store.db.execute(
                "SELECT gw, epoch FROM record GROUP BY gw, epoch ORDER BY max(id)").fetchall():
            self.acknowledge(client, gw, epoch)

    def on_message(self, client, _, message):
        try:
            gw, batch = message.topic.split("/")[2], json.loads(message.payload)
            self.store.receive(gw, batch)
            self.acknowledge(client, gw, batch["epoch"])
        except (ValueError, KeyError, TypeError, AttributeError) as why:
            print(f"{message.topic}: {why!r}", file=sys.stderr, flush=True)

    def acknowledge(self, client, gw, epoch):
        upto = self.store.upto(gw, epoch)
        self.issued = max(self.issued + 1, time.time_ns() // 1_000_000)
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.issued // 1000))
        ack = {"epoch": epoch, "upto": upto, "hash": self.store.hash(gw, epoch, upto).hex(),
               "issued_at": f"{second}.{self.issued % 1000:03}Z"}
        payload = json.dumps(ack)
        if self.key:
            content = json.dumps(ack | {"gw": gw, "typ": "ack"})
            signed = b64(b'{"alg":"EdDSA"}') + "." + b64(content.encode())
            payload = signed + "." + b64(self.key.sign(signed.encode()))
        client.publish(f"tapgate/1/{gw}/down/ack", payload, qos=1, retain=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "verify"])
    parser.add_argument("db")
    parser.add_argument("broker", nargs="?", default="mqtt://localhost:1883", type=urlsplit)
    parser.add_argument("--sign-key")
    options = parser.parse_args()
    store, broker = Store(options.db), options.broker
    if options.command == "verify":
        report = store.verify()
        print(json.dumps(report, indent=1))
        sys.exit(any(gw["faults"] or gw["imbalances"] or gw["quarantined"] for gw in report.values()))
    import paho.mqtt.client as mqtt
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="tapgate-consumer")
    tls = broker.scheme == "mqtts"
    if tls:
        client.tls_set()                    # SSL_CERT_FILE names an authority of one's own
    if broker.username:
        client.username_pw_set(broker.username, os.environ.get("MQTT_PASSWORD"))
    consumer = Consumer(store, options.sign_key)
    client.on_connect, client.on_message = consumer.on_connect, consumer.on_message
    client.connect_async(broker.hostname, broker.port or (8883 if tls else 1883), keepalive=20)
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
