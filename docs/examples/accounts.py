"""The accounts of a gateway's ledger, as docs/cloud-protocol.md has them: what consumer.py checks."""
import json
from collections import defaultdict

NO_ENERGY = {"gateway_started", "session_slot", "session_ending", "interruption", "clock_set",
             "allowlist_applied", "badge_override", "epoch_opened"}


class Accounts:
    """What the records of one gateway add up to: energy per user, and a double entry per meter."""

    def __init__(self):
        self.epoch, self.users = None, defaultdict(int)
        self.meters = {}                    # (epoch, meter): first, last, posted, open sessions
        self.counted_to = defaultdict(int)  # meter: register up to which earlier epochs count

    def post(self, epoch, record, held):
        """Raises KeyError or TypeError for a record that is not understood."""
        if epoch != self.epoch:
            for (_, meter), account in self.meters.items():
                self.counted_to[meter] = max(self.counted_to[meter], account["last"])
            self.epoch = epoch
        kind, meter = record["kind"], record.get("meter")
        if kind == "carried":
            if not held(record["epoch"], record["carried_seq"], record["hash"]):
                self.post(epoch, json.loads(record["record"]), held)
        elif kind == "meter_commissioned":
            self.account(meter, record["new_register_wh"])
        elif kind == "meter_replaced":
            old, new = record["old_register_wh"], record["new_register_wh"]
            account = self.account(meter, new)
            account["first"] += new - (account["last"] if old is None else old)
            account["last"], self.counted_to[meter] = new, 0
        elif kind == "session_started":
            if meter and record["register_wh"] is not None:
                self.account(meter, record["register_wh"])["open"].add(record["session"])
        elif kind == "session_ended":
            energy = record["energy_wh"] or 0
            if meter and record["register_wh"] is not None:
                start = record["register_wh"]
                account = self.take(meter, start, energy)
                account["open"].discard(record["session"])
                account["last"] = max(account["last"], record["end_register_wh"] or 0)
                # What an earlier epoch has counted already is not counted twice.
                energy -= min(energy, max(0, self.counted_to[meter] - start))
            self.users[record["user"]] += energy
        elif kind == "unattributed":
            self.take(meter, record["from_wh"], record["to_wh"] - record["from_wh"])
        elif kind not in NO_ENERGY:
            raise KeyError(f"unknown kind {kind}")

    def account(self, meter, register):
        new = {"first": register, "last": register, "posted": 0, "open": set()}
        return self.meters.setdefault((self.epoch, meter), new)

    def take(self, meter, start, energy):
        account = self.account(meter, start)
        account["posted"] += energy
        account["last"] = max(account["last"], start + energy)
        return account

    def imbalances(self):
        """Meters without an open session whose register and accounts disagree, with the Wh."""
        off = {f"{epoch}/{meter}": account["last"] - account["first"] - account["posted"]
               for (epoch, meter), account in self.meters.items() if not account["open"]}
        return {meter: wh for meter, wh in off.items() if wh}
