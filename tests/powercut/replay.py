"""Builds the states that a power cut may leave of a dm-log-writes log, and has each recovered.

usage: replay.py PLACE CRASH-BINARY STATES none|some

States are: everything up to a flush; after what was promised, any of the writes that no flush has
covered; in the middle of a write, torn at a sector. `none` of them may lose anything, or `some`
must. Log format: Documentation/admin-guide/device-mapper/log-writes.rst.
"""

import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR, BLOCK = 512, 4096
# Moments right after a promise give that many times the states of others.
PROMISED = 4
SEED = int(os.environ.get("TAPGATE_CRASH_SEED", "1"))


def entries(path):
    """Sector, flags, data and mark of every entry."""
    with open(path, "rb") as log:
        _, _, count, size = struct.unpack("<QQQI", log.read(28))
        at = size
        for _ in range(count):
            log.seek(at)
            header = log.read(size)
            sector, sectors, flags, length = struct.unpack("<QQQQ", header[:32])
            at += size
            data = mark = None
            if flags & MARK:
                mark = header[32 : 32 + length].split(b"\0")[0].decode()
            elif not flags & DISCARD and sectors:
                log.seek(at)
                data = log.read(sectors * SECTOR)
                at += sectors * SECTOR
            yield sector, flags, data, mark


class Disk:
    """Blocks that are not all zero."""

    def __init__(self, blocks=None):
        self.blocks = dict(blocks or {})

    def write(self, sector, data):
        at = 0
        while at < len(data):
            block, offset = divmod(sector * SECTOR + at, BLOCK)
            length = min(BLOCK - offset, len(data) - at)
            old = self.blocks.get(block, bytes(BLOCK))
            self.blocks[block] = old[:offset] + data[at : at + length] + old[offset + length :]
            at += length

    def save(self, path, size):
        with open(path, "wb") as image:
            image.truncate(size)
            for block, data in self.blocks.items():
                if any(data):
                    image.seek(block * BLOCK)
                    image.write(data)


class Trial:
    def __init__(self, place, binary):
        self.place, self.binary = place, binary
        self.size = os.path.getsize(place + "/disk.img")
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.mkdtemp(prefix="tapgate-powercut.", dir=memory)
        self.mount = self.folder + "/disk"
        os.mkdir(self.mount)
        self.tried, self.faults = 0, []

    def recover(self, disk, promised, what):
        """Mounts the state, as the next boot does, and recovers."""
        self.tried += 1
        # A file of its own: mount takes a loop device that has this name already, and what that
        # one remembers of the state before.
        image = f"{self.folder}/state-{self.tried}.img"
        disk.save(image, self.size)
        command = ["mount", "-o", "loop,noatime", image, self.mount]
        mounted = subprocess.run(command, capture_output=True, text=True)
        os.unlink(image)
        if mounted.returncode:
            self.faults.append(f"{what}: {mounted.stderr.strip()}")
            return
        try:
            command = [self.binary, "--ignored", "--exact", "powercut::recovers", "--nocapture"]
            environment = {
                **os.environ,
                "TAPGATE_POWERCUT_DISK": self.mount,
                "TAPGATE_POWERCUT_PROMISES": self.place + "/promises",
                "TAPGATE_POWERCUT_PROMISED": str(promised),
            }
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if done.returncode:
                self.faults.append(f"{what}, {promised} promises:\n{done.stdout}{done.stderr}")
        finally:
            subprocess.run(["umount", self.mount], check=True)


def share_for(log, most):
    """How many states a moment must give for so many in all; see `states`."""
    mounted = next(at for at, entry in enumerate(log) if entry[3] == "mounted")
    promises = sum(1 for *_, mark in log[mounted:] if mark)
    flushes = sum(1 for _, flags, *_ in log[mounted:] if flags & FLUSH)
    writes = sum(1 for _, flags, data, _ in log[mounted:] if data and not flags & FUA)
    return most / (PROMISED * promises + flushes + writes)


def states(log, share, rng):
    """State, promises given by then, and what it is, for a share of all moments."""
    safe, waiting, promised, live = Disk(), [], 0, False

    def cut(kept, last=None):
        disk = Disk(safe.blocks)
        for at, data in (w for w in waiting[: len(waiting) - (last is not None)] if kept()):
            disk.write(at, data)
        if last is not None:
            disk.write(*last)
        return disk

    def times(share):
        return int(share) + (rng.random() < share % 1)

    for number, (sector, flags, data, mark) in enumerate(log):
        if mark:
            live = live or mark == "mounted"
            if mark.startswith("promise-"):
                promised = int(mark.split("-")[1])
                if times(min(share, 1)):
                    yield cut(lambda: False), promised, f"entry {number}: nothing unflushed"
                for _ in range(times(share * PROMISED)):
                    kept = rng.random()
                    disk = cut(lambda: rng.random() < kept)
                    yield disk, promised, f"entry {number}: some of what is unflushed"
            continue
        if flags & FLUSH:
            for at, old in waiting:
                safe.write(at, old)
            waiting = []
            if live and times(min(share, 1)):
                yield Disk(safe.blocks), promised, f"entry {number}: up to a flush"
        if not data:
            continue
        if flags & FUA:
            safe.write(sector, data)
            continue
        waiting.append((sector, data))
        for _ in range(times(share) if live else 0):
            torn = data[: rng.randrange(len(data) // SECTOR + 1) * SECTOR]
            kept = rng.random()
            disk = cut(lambda: rng.random() < kept, (sector, torn))
            yield disk, promised, f"entry {number}: torn, some of what is unflushed"


def main():
    place, binary, most, expected = sys.argv[1:]
    log = list(entries(place + "/log.img"))
    trial = Trial(place, binary)
    try:
        for disk, promised, what in states(log, share_for(log, int(most)), random.Random(SEED)):
            trial.recover(disk, promised, what)
            if trial.faults and expected == "some":
                break
    finally:
        shutil.rmtree(trial.folder)
    print(
        f"power cuts on ext4: {len(log)} entries in the log, {trial.tried} crash states, "
        f"{len(trial.faults)} lost something ({expected} may), seed {SEED}"
    )
    if bool(trial.faults) != (expected == "some"):
        sys.exit("\n".join(trial.faults[:3]) or "nothing was lost: this proves nothing")


main()
