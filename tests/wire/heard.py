"""Reads `TOPIC<TAB>PAYLOAD` lines of what a gateway published: each must be as its schema says, and
within the contract's bounds. Says how many there were of each."""
import collections, json, sys

from schemas import schema, unb64

heard = collections.Counter()
for line in sys.stdin.buffer:
    topic, payload = line.rstrip(b"\n").split(b"\t", 1)
    topic = topic.decode().split("/")[0]
    assert len(payload) <= 64 * 1024, topic
    if topic in ("state", "station", "checkpoint"):
        assert len(payload) <= 32 * 1024, topic
    # An empty one clears what was retained.
    if payload:
        message = json.loads(unb64(payload.decode().split(".")[1]) if topic == "checkpoint" else payload)
        schema(f"up-{topic}").validate(message)
        heard[topic] += 1
        for record in message.get("records", ()):
            schema("record").validate(json.loads(record))
            heard[json.loads(record)["kind"]] += 1
print(json.dumps(heard))
