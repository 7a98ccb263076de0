#!/usr/bin/env python3
"""Writes device_vectors.json: what the simulated devices of tests/profiles.rs hold and expect.

REGISTERS are the register lists of the makers and of other drivers, not the profiles: a row is
role, read function, write function, 0-based address, type, word order, scale, unit, registers.
The words are packed here, with another program than the one under test.

    python3 tests/support/device_vectors.py > tests/support/device_vectors.json
"""

import json
import struct

REGISTERS = """
abb-b23
    energy 3 - 20480 u64 big 0.01 kWh
    power 3 - 23316 i32 big 0.01 W
    voltage 3 - 23296 u32 big 0.1 V 
    serial 3 - 35072 u32 big 1 -
abb-terra-ac
    power 3 - 16412 u32 big 1 W
    voltage 3 - 16406 u32 big 0.1 V 
    limit - 16 16640 u32 big 0.001 A
alfen-eve
    energy 3 - 374 f64 big 1 Wh
    power 3 - 344 f32 big 1 W
    voltage 3 - 306 f32 big 1 V 
    limit 3 16 1210 f32 big 1 A
bender-cc612
    energy 3 - 218 u32 big 1 Wh
    power 3 - 220 u32 big 1 W
    voltage 3 - 222 u32 big 1 V 
    limit 3 6 1000 u16 big 1 A
bender-cc612-old
    energy 3 - 200 u32 big 1 Wh 
    power 3 - 206 u32 big 1 W 
    voltage 3 - 222 u32 big 1 V 
    limit 3 6 1000 u16 big 1 A
bg-etech-ws100
    energy 3 - 270 u32 big 0.01 kWh
    power 3 - 260 i32 big 1 W
    voltage 3 - 256 u32 big 0.001 V
carlo-gavazzi-em112
    energy 4 - 16 i32 little 0.1 kWh
    power 4 - 4 i32 little 0.1 W
    voltage 4 - 0 i32 little 0.1 V
    serial 4 - 20480 ascii big 1 - 7
carlo-gavazzi-em24
    energy 4 - 66 i32 little 0.1 kWh
    power 4 - 40 i32 little 0.1 W
    voltage 4 - 0 i32 little 0.1 V 
carlo-gavazzi-em24-e1
    energy 4 - 52 i32 little 0.1 kWh
    power 4 - 40 i32 little 0.1 W
    voltage 4 - 0 i32 little 0.1 V 
    serial 4 - 20480 ascii big 1 - 7
carlo-gavazzi-em340
    energy 4 - 52 i32 little 0.1 kWh
    power 4 - 40 i32 little 0.1 W
    voltage 4 - 0 i32 little 0.1 V 
    serial 4 - 20480 ascii big 1 - 7
dzg-dvh4013
    energy 3 - 16384 u32 big 0.001 kWh
    power 3 - 0 u32 big 0.1 W
    voltage 3 - 4 u32 big 0.01 V 
eastron-sdm120
    energy 4 - 72 f32 big 1 kWh
    power 4 - 12 f32 big 1 W
    voltage 4 - 0 f32 big 1 V
    serial 3 - 64512 u32 big 1 -
eastron-sdm230
    energy 4 - 72 f32 big 1 kWh
    power 4 - 12 f32 big 1 W
    voltage 4 - 0 f32 big 1 V
    serial 3 - 64512 u32 big 1 -
eastron-sdm630
    energy 4 - 72 f32 big 1 kWh
    power 4 - 52 f32 big 1 W
    voltage 4 - 0 f32 big 1 V 
    serial 3 - 64512 u32 big 1 -
eastron-sdm72
    energy 4 - 72 f32 big 1 kWh
    power 4 - 52 f32 big 1 W
    serial 3 - 64512 u32 big 1 -
eltako-dsz15
    energy 4 - 72 u32 big 0.01 kWh
    power 4 - 52 i32 big 1 W
    voltage 4 - 0 u32 big 0.01 V 
emu-professional-2
    energy 3 - 5999 u64 big 1 Wh
    power 3 - 8999 f32 big 1 W
    voltage 3 - 9199 f32 big 1 V 
    serial 3 - 4999 u32 big 1 -
finder-7m24
    energy 4 - 2752 f32 big 1 Wh
    power 4 - 2536 f32 big 1 W
    voltage 4 - 2500 f32 big 1 V 
go-e-charger
    energy 4 - 128 u32 big 0.1 kWh
    power 4 - 120 u32 big 10 W
    voltage 4 - 108 u32 big 1 V 
    limit 3 16 299 u16 big 1 A
heidelberg-energy-control
    voltage 4 - 10 u16 big 1 V 
    limit 3 6 261 u16 big 0.1 A
inepro-pro380
    energy 3 - 24588 f32 big 1 kWh
    power 3 - 20498 f32 big 1000 W
    voltage 3 - 20482 f32 big 1 V 
    serial 3 - 16384 u32 big 1 -
innogy-ebox
    energy 4 - 307 f32 big 1 kWh
    voltage 4 - 301 f32 big 1 V 
    serial 4 - 25 ascii big 1 - 25
    limit 3 16 1012 f32 big 1 A 
iskra-wm3
    energy 4 - 406 i32 big 1 Wh
    power 4 - 140 raw big 1 W 2
    voltage 4 - 107 raw big 1 V 2
    serial 4 - 9 ascii big 1 - 4
    exponent 4 - 401 i16 big 1 -
janitza-b23
    energy 3 - 19068 f32 big 1 Wh
    power 3 - 19026 f32 big 1 W
    voltage 3 - 19000 f32 big 1 V 
janitza-umg96rm
    energy 3 - 19068 f32 big 1 Wh
    power 3 - 19026 f32 big 1 W
    voltage 3 - 19000 f32 big 1 V 
keba-p30
    energy 3 - 1036 u32 big 0.1 Wh
    power 3 - 1020 u32 big 0.001 W
    voltage 3 - 1040 u32 big 1 V 
    serial 3 - 1014 u32 big 1 -
    limit - 6 5004 u16 big 0.001 A
keba-p40
    energy 3 - 1036 u32 big 0.1 Wh
    power 3 - 1020 u32 big 0.001 W
    voltage 3 - 1040 u32 big 1 V 
    serial 3 - 1014 u32 big 1 -
    limit - 6 5004 u16 big 0.001 A
lovato-dmg610
    energy 4 - 6943 u64 big 0.01 kWh
    power 4 - 57 i32 big 0.01 W
    voltage 4 - 1 i32 big 0.01 V 
mennekes-amtron-compact
    energy 3 - 4096 f32 big 1 kWh
    power 3 - 1298 f32 big 1 W
    voltage 3 - 1286 f32 big 1 V 
    serial 3 - 19 ascii big 1 - 8
    limit 3 16 770 f32 big 1 A
mennekes-amtron-hcc3
    power 4 - 783 u32 little 1 W
    serial 4 - 779 u32 little 1 -
    limit 3 6 1024 u16 big 1 A
orno-or-we-504
    energy 3 - 7 u32 big 1 Wh
    power 3 - 3 u16 big 1 W
    voltage 3 - 0 u16 big 0.1 V
orno-or-we-514
    energy 3 - 40960 u32 big 0.01 kWh
    power 3 - 320 u32 big 1 W
    voltage 3 - 305 u16 big 0.01 V
orno-or-we-516
    energy 3 - 264 f32 big 1 kWh
    power 3 - 28 f32 big 1000 W
    voltage 3 - 14 f32 big 1 V 
phoenix-charx
    energy 3 - 1250 i64 big 1 Wh
    power 3 - 1244 i32 big 0.001 W
    voltage 3 - 1232 u32 big 0.001 V 
    limit 3 16 1301 u16 big 1 A
phoenix-ev-cc-ac1-m
    limit 3 6 22000 u16 big 1 A
phoenix-ev-cc-eth
    energy 3 - 904 u32 little 1 Wh
    power 4 - 120 u32 little 1 W
    voltage 4 - 108 u32 little 1 V 
    limit 3 6 528 u16 big 1 A
saia-ald1
    energy 3 - 27 u32 big 0.01 kWh
    power 3 - 37 i16 big 10 W
    voltage 3 - 35 u16 big 1 V
    serial 3 - 15 u32 big 1 -
saia-ale3
    energy 3 - 27 u32 big 0.01 kWh
    power 3 - 50 i16 big 10 W
    voltage 3 - 35 u16 big 1 V
    serial 3 - 15 u32 big 1 -
    energy2 3 - 31 u32 big 0.01 kWh
schneider-evlink-pro-ac
    energy 3 - 3203 u64 little 1 Wh
    power 3 - 3059 f32 little 1000 W
    limit 3 6 4004 u16 big 1 A
schneider-iem3155
    energy 3 - 3203 i64 big 1 Wh
    power 3 - 3059 f32 big 1000 W
    voltage 3 - 3027 f32 big 1 V 
    serial 3 - 129 u32 big 1 -
siemens-pac2200
    energy 4 - 801 f64 big 1 Wh
    power 4 - 65 f32 big 1 W
    voltage 4 - 1 f32 big 1 V 
socomec-countis
    energy 3 - 50946 u32 big 0.01 kWh
    power 3 - 50536 i32 big 10 W
    voltage 3 - 50520 u32 big 0.01 V 
vestel-evc04
    energy 4 - 1036 u32 big 0.1 kWh
    power 4 - 1020 u32 big 1 W
    voltage 4 - 1014 u16 big 1 V
    serial 4 - 100 ascii big 1 - 25
    limit 3 6 5004 u16 big 1 A
wallbe-eco
    energy 3 - 904 u32 little 1 Wh
    power 4 - 120 u32 little 1 W
    voltage 4 - 108 u32 little 1 V 
    limit 3 6 528 u16 big 0.1 A
webasto-next
    energy 3 - 1036 u32 big 1 Wh
    power 3 - 1020 u32 big 1 W
    limit - 16 5004 u16 big 1 A
"""

WATT_HOURS = 12_345_600
WATTS = 1_230
VOLTS = 231
AMPERES = 16
SERIAL = 20_123_456

FORMATS = {
    "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d",
}
UNITS = {"Wh": 1, "kWh": 1_000, "W": 1, "V": 1, "A": 1, "-": 1}
TABLES = {"1": "coil", "2": "discrete", "3": "holding", "4": "input"}

# Most registers per read, where the maker says so.
MOST = {
    "eastron-sdm120": 80, "eastron-sdm630": 60, "eastron-sdm72": 10, "carlo-gavazzi-em112": 50,
    "carlo-gavazzi-em340": 50, "carlo-gavazzi-em24": 11, "keba-p30": 2, "keba-p40": 2,
}
# Addresses that are not in the list are refused.
STRICT = {
    "carlo-gavazzi-em112", "carlo-gavazzi-em340", "carlo-gavazzi-em24", "carlo-gavazzi-em24-e1",
    "bender-cc612", "bender-cc612-old", "vestel-evc04", "keba-p30", "keba-p40",
}
# Start and count must be even.
EVEN = {"eastron-sdm120", "eastron-sdm230", "eastron-sdm630", "eastron-sdm72"}
# The device knows no function 6.
WITHOUT_FUNCTION_6 = {"go-e-charger", "phoenix-charx", "webasto-next", "alfen-eve", "innogy-ebox"}


def words(packed):
    return [packed[i] << 8 | packed[i + 1] for i in range(0, len(packed), 2)]


def number(kind, order, raw):
    packed = struct.pack(">" + FORMATS[kind], raw if kind[0] == "f" else round(raw))
    return words(packed)[:: -1 if order == "little" else 1]


def text(shown, registers, wide=False):
    data = shown.encode("utf-16-be" if wide else "ascii")
    return words(data.ljust(2 * int(registers), b"\0")[: 2 * int(registers)])


def short_form(exponent, mantissa):
    """Iskra's T5 and T6: eight bits of exponent, 24 bits of mantissa."""
    return words(struct.pack(">I", (exponent & 0xFF) << 24 | mantissa & 0xFFFFFF))


def state(table, address, raw, letter, kind="u16"):
    return [[[table, address, number(kind, "big", raw)]], letter]


def letters(table, address, registers):
    pairs = [("A1", "A"), ("B2", "B"), ("C1", "B"), ("C2", "C"), ("F", "F")]
    return [[[[table, address, text(shown, registers)]], letter] for shown, letter in pairs]


def cable_and(cable, charging, kind="u16", values=((0, 0, "A"), (2, 0, "B"), (3, 1, "C"))):
    both = lambda c, g: [[*cable, number(kind, "big", c)], [*charging, number(kind, "big", g)]]
    return [[both(c, g), letter] for c, g, letter in values]


def f32(value):
    return number("f32", "big", value)


# What a charger is told, as [function, address, words], with a limit of 16 A.
CHARGERS = {
    "keba-p30": {
        "startup": [[6, 5016, [0]], [6, 5018, [60]]], "start": [[6, 5004, [16_000]]],
        "stop": [[6, 5004, [0]]], "blind": True, "write_gap_s": 5,
        "states": cable_and(("holding", 1004), ("holding", 1000), "u32",
                            [(1, 1, "A"), (5, 2, "B"), (7, 3, "C"), (7, 4, "F")]),
    },
    "abb-terra-ac": {
        "start": [[16, 0x4100, [0, 16_000]]], "stop": [[16, 0x4100, [0, 0]]], "blind": True,
        "states": [state("holding", 0x400C, raw, letter, "u32") for raw, letter in
                   [(0, "A"), (0x100, "B"), (0x8200, "B"), (0x8400, "C"), (0x300, "B")]],
    },
    "alfen-eve": {
        "start": [[16, 1210, f32(16)]], "stop": [[16, 1210, f32(0)]],
        "states": letters("holding", 1201, 5), "refresh_s": 30,
    },
    "phoenix-ev-cc-ac1-m": {
        "startup": [[6, 4000, [3]]], "start": [[6, 22000, [16]], [5, 20000, [0xFF00]]],
        "stop": [[5, 20000, [0]]], "states": letters("input", 24000, 1),
    },
    "phoenix-charx": {
        "startup": [[16, 1306, [0]], [16, 1307, [60]]],
        "start": [[16, 1301, [16]], [16, 1300, [1]]], "stop": [[16, 1300, [0]]],
        "states": letters("holding", 1299, 1),
    },
    "phoenix-ev-cc-eth": {
        "start": [[6, 528, [16]], [5, 400, [0xFF00]]], "stop": [[5, 400, [0]]],
        "states": [state("input", 100, ord(c), c) for c in "ABCF"],
    },
    "wallbe-eco": {
        "start": [[6, 528, [160]], [5, 400, [0xFF00]]], "stop": [[5, 400, [0]]],
        "states": [state("input", 100, ord(c), c) for c in "ABCF"],
    },
    "schneider-evlink-pro-ac": {
        "startup": [[6, 4005, [0]], [6, 4006, [0]]], "start": [[6, 4004, [16]]],
        "stop": [[6, 4004, [0]]], "heartbeat": [6, 4000, [1]], "heartbeat_s": 2,
        "states": cable_and(("holding", 1150), ("holding", 1), "u16",
                            [(0, 1, "A"), (1, 2, "B"), (1, 8, "C"), (1, 9, "C")]),
    },
    "webasto-next": {
        "startup": [[16, 2000, [0]], [16, 2002, [60]]], "start": [[16, 5004, [16]]],
        "stop": [[16, 5004, [0]]], "heartbeat": [16, 6000, [1]], "heartbeat_s": 30, "blind": True,
        "states": [state("holding", 1000, raw, letter) for raw, letter in
                   [(0, "A"), (1, "B"), (3, "C"), (4, "B"), (7, "F")]],
    },
    "vestel-evc04": {
        "startup": [[6, 2000, [0]], [6, 2002, [60]]], "start": [[6, 5004, [16]]],
        "stop": [[6, 5004, [0]]], "heartbeat": [6, 6000, [1]], "heartbeat_s": 30,
        "states": cable_and(("input", 1004), ("input", 1001)),
    },
    "mennekes-amtron-compact": {
        "startup": [[6, 782, [1]]], "start": [[16, 770, f32(16)], [6, 3333, [1]]],
        "stop": [[6, 3333, [0]]], "heartbeat": [6, 3328, [0x55AA]], "heartbeat_s": 10,
        "states": [state("holding", 256, raw, letter) for raw, letter in
                   [(1, "A"), (2, "B"), (3, "B"), (4, "B"), (5, "C"), (6, "F")]],
    },
    "mennekes-amtron-hcc3": {
        "start": [[6, 1024, [16]]], "stop": [[6, 1024, [0]]],
        "states": [state("input", 770, raw, letter) for raw, letter in
                   [(1, "A"), (2, "A"), (3, "B"), (4, "B"), (5, "C"), (6, "C")]],
    },
    "bender-cc612": {
        "start": [[6, 1000, [16]]], "stop": [[6, 1000, [0]]],
        "states": [state("holding", 122, raw, letter) for raw, letter in
                   [(1, "A"), (2, "B"), (3, "C"), (4, "C"), (5, "F")]],
    },
    "heidelberg-energy-control": {
        "startup": [[6, 258, [4]], [6, 262, [0]], [6, 257, [15_000]]],
        "start": [[6, 261, [160]], [6, 259, [1]]], "stop": [[6, 259, [0]]],
        "states": [state("input", 5, raw, letter) for raw, letter in
                   [(2, "A"), (3, "A"), (4, "B"), (5, "B"), (7, "C"), (8, "C"), (10, "F")]],
    },
    "go-e-charger": {
        "start": [[16, 299, [16]], [16, 337, [2]]], "stop": [[16, 337, [1]]],
        "states": [state("input", 100, raw, letter) for raw, letter in
                   [(1, "A"), (2, "C"), (3, "B"), (4, "B")]],
    },
    "innogy-ebox": {
        "start": [[16, 1012, f32(16) * 3]], "stop": [[16, 1012, f32(0) * 3]],
        "states": [[[["input", 275, text(shown, 25)]], shown[0]] for shown in ["A1", "B2", "C2"]],
    },
}
CHARGERS["keba-p40"] = {**CHARGERS["keba-p30"], "blind": False}
CHARGERS["bender-cc612-old"] = CHARGERS["bender-cc612"]


def coil(first, count, inputs=None):
    return {"function": 5, "first": first, "count": count, "on": 0xFF00, "off": 0, "inputs": inputs}


# How a relay board is switched, and where its first input lies.
RELAYS = {
    "waveshare-relay-8": coil(0, 8), "waveshare-relay-16": coil(0, 16),
    "waveshare-relay-30": coil(0, 30), "waveshare-relay-8d": coil(0, 8, ["discrete", 0]),
    "eletechsup-relay-8": {"function": 6, "first": 1, "count": 8, "on": 0x0100, "off": 0x0200,
                           "inputs": ["holding", 129]},
    "kmtronic-relay-8": coil(0, 8), "wiren-board-mr6c": coil(0, 6, ["discrete", 0]),
    "advantech-adam-6060": coil(16, 6, ["coil", 0]),
    "moxa-iologik-e1214": coil(0, 6, ["discrete", 0]),
    "brainboxes-ed-588": coil(0, 8, ["discrete", 0]),
    "brainboxes-ed-538": coil(0, 4, ["discrete", 0]),
    "wago-750-352": coil(512, 64, ["discrete", 0]), "wellpro-wp8025": coil(0, 8),
    "wellpro-wp8028": coil(0, 8, ["discrete", 0]),
}
RELAY_STARTUP = {
    "waveshare-relay-8d": [[6, 0x1000 + n, [0]] for n in range(8)],
    "eletechsup-relay-8": [[6, 0xFD, [0]]],
    "wiren-board-mr6c": [[6, 938 + n, [0]] for n in range(6)],
}
# What tells the model, with the register that a scan reads.
MODELS = {
    "eastron-sdm120": ["holding", 0xFC02, [0x20, 0x0100]],
    "carlo-gavazzi-em112": ["input", 11, [104]], "carlo-gavazzi-em340": ["input", 11, [341]],
    "abb-b23": ["holding", 0x8960, [0x4232, 0x3320]],
    "socomec-countis": ["holding", 0xC350, [ord(c) for c in "SOCO"]],
}


def meter_registers(name, rows):
    registers, expected = [], {}
    for row in rows:
        role, read, _, address, kind, order, scale, unit, *length = row.split()
        factor = float(scale) * UNITS[unit]
        value = {"energy": WATT_HOURS, "energy2": WATT_HOURS, "power": WATTS, "voltage": VOLTS,
                 "serial": SERIAL, "limit": 0, "exponent": 1}[role]
        if read == "-":
            continue
        if kind == "raw":
            packed = short_form(1, 123) if role == "power" else short_form(-1, 2_310)
        elif kind == "ascii":
            packed = text("KX1234", length[0], wide=name == "vestel-evc04")
        elif kind[0] == "f":
            packed = number(kind, order, value / factor)
        else:
            packed = number(kind, order, round(value / factor))
        if (name, role) == ("iskra-wm3", "energy"):
            packed = number(kind, order, WATT_HOURS // 10)
        if name == "bender-cc612-old" and role in ("energy", "power"):
            packed = sum((number(kind, order, value // 3) for _ in range(3)), [])
        registers.append([TABLES[read], int(address), packed])
        if role in ("energy", "energy2"):
            expected["wh"] = expected.get("wh", 0) + WATT_HOURS
        if role == "power":
            expected["mw"] = WATTS * 1_000
        if role == "voltage":
            expected["mv"] = VOLTS * 1_000
        if role == "serial":
            expected["serial"] = "KX1234" if kind == "ascii" else str(SERIAL)
    return registers, expected


def vector(name, rows):
    registers, expected = meter_registers(name, rows)
    made = {
        "most": MOST.get(name, 125), "strict": name in STRICT, "even": name in EVEN,
        "without_function_6": name in WITHOUT_FUNCTION_6, "registers": registers,
        "expected": expected,
    }
    if name in MODELS:
        made["registers"].append(MODELS[name])
    if name in CHARGERS:
        made["charger"] = CHARGERS[name]
        made["registers"] += CHARGERS[name]["states"][0][0]
    if name in RELAYS:
        made["relay"] = RELAYS[name]
        made["relay"]["startup"] = RELAY_STARTUP.get(name, [])
    return made


def main():
    rows = {}
    for line in REGISTERS.strip().splitlines():
        if line.startswith(" "):
            rows[name].append(line)
        else:
            name = line.strip()
            rows[name] = []
    rows.update({name: [] for name in RELAYS})
    rows["wellpro-wp8026"] = []
    lines = [f"{json.dumps(name)}: {json.dumps(vector(name, rows[name]))}" for name in sorted(rows)]
    print("{\n" + ",\n".join(lines) + "\n}")


main()
