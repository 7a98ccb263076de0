"""A Modbus server of another make (pymodbus): one relay board and Eastron meters.

    modbus_peer.py [--port N | --serial PATH --baud N] [--relay UNIT] [--meters UNIT,UNIT]

Says {"ready": PORT-OR-PATH} on stdout, then answers each JSON line on stdin with one line:

    {"do": "power", "unit": 11, "w": 2000}          power of the meter while its relay is closed
    {"do": "energy", "unit": 11, "wh": 12346}       sets the register; a fraction is shown and stays
    {"do": "wire", "unit": 11, "coil": 0}           the meter's load hangs behind this relay
    {"do": "silence", "unit": 11}, {"do": "wake", "unit": 11}
    {"do": "delay", "unit": 11, "ms": 300}          answers late from now on
    {"do": "coil", "coil": 0}                       -> {"on": true}
    {"do": "set_coil", "coil": 0, "on": false}      behind the gateway's back
    {"do": "input", "input": 4, "on": true}         a button or a contactor
    {"do": "follow", "input": 0, "coil": 0}         the input follows the relay, as a contactor does
    {"do": "board"}                                 -> {"inputs": 3}, reads of the inputs
    {"do": "read", "unit": 11}                      -> {"wh": 12346, "requests": 7}
    {"do": "writes"}                                -> {"writes": [[0, true], [0, false]]}
    {"do": "cuts"}                                  -> {"cuts": [[0, 2000]]}, opened under this load
    {"do": "witness", "folder": A, "copy": B}       copies A before the next relay changes

Ends when stdin does.
"""

import argparse
import asyncio
import json
import shutil
import struct
import sys
import time

from pymodbus.constants import ExcCodes
from pymodbus.datastore import ModbusServerContext
from pymodbus.datastore.context import ModbusBaseDeviceContext
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer

READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT_REGISTERS = 1, 2, 3, 4
SDM120_POWER, SDM630_POWER, ENERGY_IMPORT, SERIAL = 12, 52, 72, 0xFC00


class Unit(ModbusBaseDeviceContext):
    """A slave that can be late."""

    def __init__(self):
        self.delay_s = 0.0
        self.requests = 0

    async def async_getValues(self, func_code, address, count=1):
        await asyncio.sleep(self.delay_s)
        return self.getValues(func_code, address, count)


class Relays(Unit):
    """Eight coils and eight inputs."""

    def __init__(self):
        super().__init__()
        self.coils = [False] * 8
        self.inputs = [False] * 8
        self.followers = {}
        self.input_reads = 0
        self.writes = []
        self.cuts = []
        self.load = lambda coil: 0
        self.witness = None
        self.on_change = lambda: None

    def getValues(self, func_code, address, count=1):
        self.requests += 1
        table = {READ_COILS: self.coils, 5: self.coils, 15: self.coils}.get(func_code)
        if func_code == READ_INPUTS:
            self.input_reads += 1
            table = list(self.inputs)
            for number, coil in self.followers.items():
                table[number] = self.coils[coil]
        if table is None:
            return ExcCodes.ILLEGAL_FUNCTION
        if address + count > len(table):
            return ExcCodes.ILLEGAL_ADDRESS
        return table[address : address + count]

    def setValues(self, func_code, address, values):
        if address + len(values) > len(self.coils):
            return ExcCodes.ILLEGAL_ADDRESS
        if self.witness:
            shutil.copytree(*self.witness)
            self.witness = None
        self.writes += [[address + n, bool(value)] for n, value in enumerate(values)]
        for coil, value in enumerate(values, address):
            if self.coils[coil] and not value and self.load(coil):
                self.cuts.append([coil, self.load(coil)])
        self.on_change()
        self.coils[address : address + len(values)] = [bool(value) for value in values]
        return None


class Meter(Unit):
    """An Eastron meter: f32 of kWh and W, high word first; counts exactly while load flows."""

    def __init__(self, number, relays):
        super().__init__()
        self.serial = 20_000_000 + number
        self.relays = relays
        self.coil = None
        self.power_w = 0
        self.wh = 0.0
        self.fraction = 0.0
        self.since = time.monotonic()

    def power(self):
        switched_off = self.coil is not None and not self.relays.coils[self.coil]
        return 0 if switched_off else self.power_w

    def count(self):
        now = time.monotonic()
        self.wh += self.power() * (now - self.since) / 3600
        self.since = now

    def getValues(self, func_code, address, count=1):
        self.requests += 1
        self.count()
        registers = {}

        def put(at, packed):
            for index, word in enumerate(struct.unpack(f">{len(packed) // 2}H", packed)):
                registers[at + index] = word

        if func_code == READ_INPUT_REGISTERS and address + count <= 400:
            for at in (SDM120_POWER, SDM630_POWER):
                put(at, struct.pack(">f", self.power()))
            put(ENERGY_IMPORT, struct.pack(">f", (int(self.wh) + self.fraction) / 1000))
        elif func_code == READ_HOLDING and SERIAL <= address <= SERIAL + 2 - count:
            put(SERIAL, struct.pack(">I", self.serial))
        else:
            return ExcCodes.ILLEGAL_ADDRESS
        return [registers.get(at, 0) for at in range(address, address + count)]

    def setValues(self, func_code, address, values):
        return ExcCodes.ILLEGAL_FUNCTION


class Peer:
    """The bus and what the test may do to it."""

    def __init__(self, options):
        self.relays = Relays()
        self.relay_unit = options.relay
        self.meters = {int(unit): Meter(int(unit), self.relays) for unit in options.meters.split(",")}
        self.relays.load = lambda coil: sum(
            meter.power() for meter in self.meters.values() if meter.coil == coil
        )
        self.relays.on_change = lambda: [meter.count() for meter in self.meters.values()]
        self.units = {self.relay_unit: self.relays, **self.meters}
        self.context = ModbusServerContext(devices=dict(self.units), single=False)

    def obey(self, order):
        what, unit = order["do"], self.units.get(order.get("unit"))
        if what == "power":
            unit.count()
            unit.power_w = order["w"]
        elif what == "energy":
            unit.count()
            unit.wh, unit.fraction = float(int(order["wh"])), order["wh"] % 1
        elif what == "wire":
            unit.count()
            unit.coil = order["coil"]
        elif what == "silence":
            del self.context[order["unit"]]
        elif what == "wake":
            self.context[order["unit"]] = unit
        elif what == "delay":
            unit.delay_s = order["ms"] / 1000
        elif what == "coil":
            return {"on": self.relays.coils[order["coil"]]}
        elif what == "set_coil":
            self.relays.setValues(5, order["coil"], [order["on"]])
        elif what == "input":
            self.relays.inputs[order["input"]] = order["on"]
        elif what == "follow":
            self.relays.followers[order["input"]] = order["coil"]
        elif what == "board":
            return {"inputs": self.relays.input_reads}
        elif what == "writes":
            return {"writes": self.relays.writes}
        elif what == "cuts":
            return {"cuts": self.relays.cuts}
        elif what == "witness":
            self.relays.witness = (order["folder"], order["copy"])
        elif what == "read":
            unit.count()
            return {"wh": int(unit.wh), "requests": unit.requests}
        else:
            return {"error": f"unknown order {what}"}
        return {}


def say(message):
    print(json.dumps(message), flush=True)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--serial")
    parser.add_argument("--baud", type=int, default=19200)
    parser.add_argument("--relay", type=int, default=1)
    parser.add_argument("--meters", default="11,12")
    options = parser.parse_args()
    peer = Peer(options)
    if options.serial:
        server = ModbusSerialServer(
            peer.context,
            framer=FramerType.RTU,
            port=options.serial,
            baudrate=options.baud,
            ignore_missing_devices=True,
        )
        await server.serve_forever(background=True)
        say({"ready": options.serial})
    else:
        server = ModbusTcpServer(
            peer.context, address=("127.0.0.1", options.port), ignore_missing_devices=True
        )
        await server.serve_forever(background=True)
        say({"ready": server.transport.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        say(peer.obey(json.loads(line)))
    await server.shutdown()


asyncio.run(main())
