"""The obvious loop with pymodbus: power and energy of each meter, one after the other, for ever.

    pymodbus_loop.py PORT BAUD METERS SECONDS
"""

import logging
import sys
import time

from pymodbus.client import ModbusSerialClient
from pymodbus.exceptions import ModbusException

port, baud, meters, seconds = sys.argv[1], *map(int, sys.argv[2:])
# Parity is not set: a pty has none. The line counts 11 bits a byte all the same.
# No retries and the same time-out as tapgate: kinder to dead units than the defaults (3 and 3 s).
client = ModbusSerialClient(port, baudrate=baud, timeout=0.2, retries=0)
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
if not client.connect():
    sys.exit("cannot open " + port)
end = time.monotonic() + seconds
while time.monotonic() < end:
    for unit in range(11, 11 + meters):
        for address in (12, 72):
            try:
                client.read_input_registers(address, count=2, device_id=unit)
            except ModbusException:
                client.connect()
client.close()
