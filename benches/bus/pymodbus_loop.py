"""The obvious loop with pymodbus: power and energy of each meter, one after the other, for ever;
between two requests it looks whether somebody tapped.

    pymodbus_loop.py PORT BAUD METERS TIMEOUT_MS TAPS

TAPS is a port of this machine. From there come lines, "1" to close a switch and "0" to open it.
"""

import logging
import os
import queue
import socket
import sys
import threading

from pymodbus.client import ModbusSerialClient
from pymodbus.exceptions import ModbusException

RELAYS, RELAY = 1, 0


def listen(taps, orders):
    for line in taps.makefile():
        orders.put(line.strip() == "1")
    # The bench is gone.
    os._exit(0)


def ask(client, request, *arguments, **options):
    try:
        request(*arguments, **options)
    except ModbusException:
        client.connect()


port, (baud, meters, timeout_ms, tap_port) = sys.argv[1], map(int, sys.argv[2:])
# Parity is not set: a pty has none. The line counts 11 bits a byte all the same.
# No retries and the same time-out as tapgate: kinder to dead units than the defaults (3 and 3 s).
client = ModbusSerialClient(port, baudrate=baud, timeout=timeout_ms / 1000, retries=0)
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
if not client.connect():
    sys.exit("cannot open " + port)
orders = queue.SimpleQueue()
taps = socket.create_connection(("127.0.0.1", tap_port))
threading.Thread(target=listen, args=(taps, orders), daemon=True).start()
while True:
    for unit in range(11, 11 + meters):
        for address in (12, 72):
            while not orders.empty():
                ask(client, client.write_coil, RELAY, orders.get(), device_id=RELAYS)
            ask(client, client.read_input_registers, address, count=2, device_id=unit)
