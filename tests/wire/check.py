"""Reads the golden files with none of tapgate's code: schemas, chain, digest, signatures."""
import hashlib, json, pathlib

from schemas import schema, unb64
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

V1 = pathlib.Path(__file__).parent / "v1"


def refuses(name, value):
    assert not schema(name).is_valid(value), f"{name} takes {value}"


def payload(jws):
    """What a compact JWS carries, once its signature is checked."""
    header, content, signature = jws.split(".")
    assert json.loads(unb64(header)) == {"alg": "EdDSA"}
    key = Ed25519PublicKey.from_public_bytes(unb64((V1 / "public-key.txt").read_text()))
    key.verify(unb64(signature), f"{header}.{content}".encode())
    return json.loads(unb64(content))


# Every sample is as its schema says.
for name, values in json.loads((V1 / "samples.json").read_text()).items():
    for value in values:
        schema(name).validate(value)
for name in ("up-usage", "up-checkpoint", "down-ack", "down-allowlist"):
    schema(name).validate(json.loads((V1 / f"{name}.json").read_text()))

# Every record too, and the hashes chain their very bytes.
lines = (V1 / "records.jsonl").read_bytes().splitlines()
last = bytes(32)
for line, held in zip(lines, (V1 / "hashes.txt").read_text().split(), strict=True):
    schema("record").validate(json.loads(line))
    last = hashlib.sha256(b"tapgate-ledger-1" + last + line).digest()
    assert last.hex() == held, line
batch = json.loads((V1 / "up-usage.json").read_text())
assert [text.encode() for text in batch["records"]] == lines[batch["first"] - 1:]
assert batch["prev"] == (V1 / "hashes.txt").read_text().split()[batch["first"] - 2]

# The digest covers each entry as it came. For these, sorted keys without spaces are RFC 8785.
head = json.loads((V1 / "down-allowlist.json").read_text())
canonical = [json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
             for entry in sorted(head["entries"], key=lambda entry: bytes.fromhex(entry["uid"]))]
hashes = b"".join(hashlib.sha256(entry).digest() for entry in canonical)
assert hashlib.sha256(hashes).hexdigest() == head["digest"]

# Signed messages say for whom and what they are.
ack = payload((V1 / "down-ack.jws").read_text())
assert (ack.pop("gw"), ack.pop("typ")) == ("ch-lausanne-012-a", "ack")
assert ack == json.loads((V1 / "down-ack.json").read_text())
assert payload((V1 / "up-checkpoint.jws").read_text())["typ"] == "checkpoint"

# Schemas that take everything would say nothing.
refuses("record", {"seq": 1, "kind": "session_started"})
refuses("down-ack", {"epoch": "e", "upto": 1, "hash": "AB", "issued_at": "2026-11-22T10:00:00Z"})
refuses("up-state", {"online": "yes"})
refuses("down-cmd", {"id": "1", "expires": "2026-11-22T10:01:02Z", "op": "unheard.of"})
refuses("down-allowlist", head | {"entries": [head["entries"][0] | {"origin": "found"}]})
refuses("down-allowlist", head | {"parts": []})
