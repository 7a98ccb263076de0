//! A Modbus TCP server for the room: functions 1 to 5, all that relays and Eastron meters need.
//! Written out here rather than taken from a crate so that a unit can stay silent or be late.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Building;
use super::model::Room;

/// Modbus TCP: transaction, protocol, length, unit.
const HEADER: usize = 7;
/// Longest frame after the header (Modbus messaging on TCP/IP, 4.1).
const MAX_PDU: usize = 253;

const ILLEGAL_FUNCTION: u8 = 1;
const ILLEGAL_ADDRESS: u8 = 2;
const ILLEGAL_VALUE: u8 = 3;

/// Registers of Eastron meters; the voltage is that of the first phase.
const VOLTAGE: u16 = 0;
const SDM120_POWER: u16 = 12;
const SDM630_POWER: u16 = 52;
const ENERGY_IMPORT: u16 = 72;
const SERIAL_NUMBER: u16 = 0xFC00;
/// What the grid of the technical room shows.
const GRID_V: f32 = 230.4;
/// Registers up to here read as zero where nothing is shown.
const LAST_INPUT_REGISTER: u16 = 400;

/// Serves every connection until the runtime ends.
pub(super) async fn serve(listener: TcpListener, building: Building) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(stream, building.clone()));
    }
}

/// One connection, until it closes or talks nonsense.
async fn converse(mut stream: TcpStream, building: Building) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await.ok()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut pdu = vec![0; length.checked_sub(1).filter(|length| *length <= MAX_PDU)?];
        stream.read_exact(&mut pdu).await.ok()?;
        let unit = header[6];
        let Some((delay, answer)) = respond(&mut building.room(), unit, &pdu) else { continue };
        tokio::time::sleep(delay).await;
        header[4..6].copy_from_slice(&(answer.len() as u16 + 1).to_be_bytes());
        stream.write_all(&[&header[..], &answer].concat()).await.ok()?;
    }
}

/// What a unit answers, and how late; `None` where it is silent or not there.
fn respond(room: &mut Room, unit: u8, pdu: &[u8]) -> Option<(Duration, Vec<u8>)> {
    let glitch = room.glitch(unit);
    let exists = room.relays(unit).is_some() || room.serial(unit).is_some();
    if glitch.silent || !exists {
        return None;
    }
    let function = *pdu.first()?;
    let answer = answer(room, unit, pdu).unwrap_or_else(|code| vec![function | 0x80, code]);
    Some((glitch.delay, answer))
}

fn answer(room: &mut Room, unit: u8, pdu: &[u8]) -> Result<Vec<u8>, u8> {
    let word = |at: usize| -> Result<u16, u8> {
        let bytes = pdu.get(at..at + 2).ok_or(ILLEGAL_VALUE)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (function, address, value) = (pdu[0], word(1)?, word(3)?);
    match function {
        1 => bits(function, room.relays(unit).ok_or(ILLEGAL_FUNCTION)?, address, value),
        2 => bits(function, room.inputs(unit).ok_or(ILLEGAL_FUNCTION)?, address, value),
        3 | 4 => registers(room, unit, function, address, value),
        5 => {
            let relays = room.relays(unit).ok_or(ILLEGAL_FUNCTION)?;
            if usize::from(address) >= relays.len() {
                return Err(ILLEGAL_ADDRESS);
            }
            match value {
                0xFF00 => room.set_relay(unit, address, true),
                0 => room.set_relay(unit, address, false),
                _ => return Err(ILLEGAL_VALUE),
            }
            Ok(pdu.to_vec())
        }
        _ => Err(ILLEGAL_FUNCTION),
    }
}

fn bits(function: u8, table: &[bool], address: u16, count: u16) -> Result<Vec<u8>, u8> {
    let start = usize::from(address);
    let read = table.get(start..start + usize::from(count)).ok_or(ILLEGAL_ADDRESS)?;
    let packed = read
        .chunks(8)
        .map(|bits| bits.iter().enumerate().fold(0, |byte, (bit, on)| byte | u8::from(*on) << bit));
    let packed: Vec<u8> = packed.collect();
    Ok([&[function, packed.len() as u8], packed.as_slice()].concat())
}

fn registers(room: &Room, unit: u8, function: u8, address: u16, count: u16) -> Result<Vec<u8>, u8> {
    let serial = room.serial(unit).ok_or(ILLEGAL_FUNCTION)?;
    let end = address.checked_add(count).ok_or(ILLEGAL_ADDRESS)?;
    if count == 0 || count > 125 {
        return Err(ILLEGAL_VALUE);
    }
    let shown: Vec<(u16, u32)> = match function {
        4 if end <= LAST_INPUT_REGISTER => {
            let power = (room.power_mw(unit) as f32 / 1_000.0).to_bits();
            // Eastron shows whole watt-hours.
            let kwh = (room.total_mwh(unit) / 1_000) as f64 / 1_000.0;
            vec![
                (VOLTAGE, GRID_V.to_bits()),
                (SDM120_POWER, power),
                (SDM630_POWER, power),
                (ENERGY_IMPORT, (kwh as f32).to_bits()),
            ]
        }
        3 if (SERIAL_NUMBER..=SERIAL_NUMBER + 2).contains(&end) && address >= SERIAL_NUMBER => {
            vec![(SERIAL_NUMBER, serial)]
        }
        _ => return Err(ILLEGAL_ADDRESS),
    };
    let word = |at: u16| {
        let value = shown.iter().find(|(start, _)| at == *start || at == *start + 1);
        value.map_or(0, |(start, value)| if at == *start { value >> 16 } else { value & 0xFFFF })
    };
    let words = (address..end).flat_map(|at| (word(at) as u16).to_be_bytes());
    Ok([function, (count * 2) as u8].into_iter().chain(words).collect())
}
