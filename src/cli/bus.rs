//! `tapgate bus`: looks at a bus, reads and writes points by hand.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::Format;
use crate::cli::console::{Console, listed, refuse, usage};
use crate::cli::scan;
use crate::config::profile::Point;
use crate::config::wiring::Device;
use crate::core::ids::BusId;
use crate::io::modbus;
use crate::protocol::control::{BusAnswer, BusFailure, BusOrder};

#[derive(Subcommand)]
pub(super) enum BusCommand {
    /// Find the units on a bus and propose profiles; only reads
    #[command(after_help = "Example:\n  tapgate bus scan laundry --units 1-32\n\nA silent unit \
        costs one or two time-outs of the bus. Taps go first while the daemon runs.")]
    Scan {
        /// The bus, as in the config (default: all)
        bus: Option<String>,
        /// Unit ids to ask, such as 1-32 or 1,11-16 (default: 1-32, those that known devices are
        /// delivered with, and those in the config)
        #[arg(long, value_name = "UNITS", value_parser = scan::units)]
        units: Option<scan::Units>,
        #[command(flatten)]
        format: Format,
    },
    /// Read a point of a device, or registers of any unit
    #[command(after_help = "Examples:\n  tapgate bus read meter-washer-1 energy_import\n  \
        tapgate bus read --raw laundry 11 input 72 2\n\nAddresses are 0-based, as on the wire.")]
    Read {
        /// BUS UNIT TABLE ADDRESS [COUNT] instead of DEVICE POINT
        #[arg(long)]
        raw: bool,
        /// DEVICE POINT
        #[arg(required = true, num_args = 2..=5, value_name = "WHAT")]
        what: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Write a point that gives no power
    #[command(after_help = "Example:\n  tapgate bus write wallbox-13 failsafe_timeout 60\n\n\
        Switches are refused: tapgate station on puts what flows on record.")]
    Write {
        /// The device, as in the config
        device: String,
        /// The point, as in `tapgate profiles show`
        point: String,
        /// In the point's unit; on and off for coils
        value: String,
        #[command(flatten)]
        format: Format,
    },
}

/// The four tables of the Modbus data model.
#[derive(Clone, Copy, ValueEnum)]
enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

pub(super) fn run(config: &std::path::Path, command: BusCommand) -> ExitCode {
    let mut console = match Console::open(config) {
        Ok(console) => console,
        Err(code) => return code,
    };
    let outcome = match command {
        BusCommand::Scan { bus, units, format } => {
            scan::run(&mut console, bus.as_deref(), units.as_ref(), format.json)
        }
        BusCommand::Read { raw: false, what, format } => match what.as_slice() {
            [device, point] => read(&mut console, device, point, format.json),
            _ => Err(usage("expected DEVICE POINT; for registers: --raw BUS UNIT TABLE ADDRESS")),
        },
        BusCommand::Read { raw: true, what, format } => read_raw(&mut console, &what, format.json),
        BusCommand::Write { device, point, value, format } => {
            write(&mut console, &device, (&point, &value), format.json)
        }
    };
    outcome.unwrap_or_else(|code| code)
}

fn read(console: &mut Console, device: &str, name: &str, json: bool) -> Result<ExitCode, ExitCode> {
    let device = console.device(device)?;
    let point = point_of(&device, name)?;
    if !point.readable {
        return Err(usage(&format!("{}/{name} is write-only in its profile", device.id)));
    }
    let at = format!("{}/{name}", device.id);
    let shown = console.read(&device, point).map_err(|failure| refuse_at(&at, failure))?;
    let unit = point.unit.as_deref().unwrap_or("");
    let meaning = shown.value.as_ref().and_then(|value| point.values.get(value));
    if json {
        println!(
            "{}",
            json!({ "device": device.id.as_str(), "point": name, "value": shown.value,
                "unit": point.unit, "meaning": meaning, "raw": raw_json(&shown.raw) })
        );
    } else {
        let value = shown.value.as_deref().unwrap_or("no value");
        let meaning = meaning.map_or(String::new(), |meaning| format!(" ({meaning})"));
        let line = format!("{}/{name} = {value} {unit}{meaning}", device.id);
        println!("{}  [raw {}]", line.trim_end(), raw_text(&shown.raw));
    }
    Ok(ExitCode::SUCCESS)
}

fn read_raw(console: &mut Console, what: &[String], json: bool) -> Result<ExitCode, ExitCode> {
    let (bus, rest) = match what {
        [bus, rest @ ..] if (3..=4).contains(&rest.len()) => (bus, rest),
        _ => return Err(usage("expected BUS UNIT TABLE ADDRESS [COUNT]")),
    };
    let buses = &console.config.wiring.buses;
    if !buses.iter().any(|known| known.id.as_str() == bus) {
        let known = listed(buses.iter().map(|bus| bus.id.as_str()));
        return Err(usage(&format!("there is no bus `{bus}`; the config has: {known}")));
    }
    let unit: u8 = number(&rest[0], "a unit id is 0 to 255")?;
    let table = Table::from_str(&rest[1], true)
        .map_err(|_| usage("a table is coil, discrete, input or holding"))?;
    let address: u16 = number(&rest[2], "an address is 0 to 65535, or 0x0000 to 0xFFFF")?;
    let count: u16 = match rest.get(3) {
        Some(count) => number(count, "a count is 1 to 125 registers or 2000 bits")?,
        None => 1,
    };
    let order = match table {
        Table::Coil => BusOrder::ReadCoils { address, count },
        Table::Discrete => BusOrder::ReadDiscreteInputs { address, count },
        Table::Input => BusOrder::ReadInputRegisters { address, count },
        Table::Holding => BusOrder::ReadHoldingRegisters { address, count },
    };
    let bus = BusId::from(bus.as_str());
    let answer = console.ask(&bus, unit, order).map_err(|failure| refuse(&failure))?;
    if json {
        println!(
            "{}",
            json!({ "bus": bus.as_str(), "unit": unit, "address": address,
                "raw": raw_json(&answer) })
        );
    } else {
        print_table(address, &answer);
    }
    Ok(ExitCode::SUCCESS)
}

fn write(
    console: &mut Console,
    device: &str,
    (name, value): (&str, &str),
    json: bool,
) -> Result<ExitCode, ExitCode> {
    let device = console.device(device)?;
    let point = point_of(&device, name)?;
    let order = modbus::encoded(point, value)
        .map_err(|problem| usage(&format!("{}/{name}: {problem}", device.id)))?;
    if let Some(reason) =
        modbus::protected(&console.config.wiring, &device.bus, device.unit, &order)
    {
        return Err(usage(&reason));
    }
    let asked = console.ask(&device.bus, device.unit, order);
    asked.map_err(|failure| refuse_at(&format!("{}/{name}", device.id), failure))?;
    // Not every device shows what was written.
    let after = point.readable.then(|| console.read(&device, point).ok()).flatten();
    let after = after.and_then(|shown| shown.value);
    if json {
        let id = device.id.as_str();
        println!("{}", json!({ "device": id, "point": name, "written": value, "reads": after }));
    } else {
        let reads = after.map_or(String::new(), |value| format!(", reads {value}"));
        println!("{}/{name} written{reads}", device.id);
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse_at(at: &str, failure: BusFailure) -> ExitCode {
    refuse(&BusFailure { message: format!("{at}: {}", failure.message), ..failure })
}

fn point_of<'d>(device: &'d Device, name: &str) -> Result<&'d Point, ExitCode> {
    device.profile.points.get(name).ok_or_else(|| {
        let known = listed(device.profile.points.keys().map(String::as_str));
        usage(&format!(
            "{} ({}) has no point `{name}`; it has: {known}",
            device.id, device.profile.name
        ))
    })
}

/// Decimal, or hexadecimal after 0x.
fn number<T: TryFrom<u32>>(text: &str, expected: &str) -> Result<T, ExitCode> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    parsed
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| usage(&format!("`{text}`: {expected}")))
}

fn raw_json(answer: &BusAnswer) -> Value {
    match answer {
        BusAnswer::Bits(bits) => json!(bits),
        BusAnswer::Words(words) => json!(words),
        BusAnswer::Written => Value::Null,
    }
}

fn raw_text(answer: &BusAnswer) -> String {
    match answer {
        BusAnswer::Bits(bits) => {
            bits.iter().map(|bit| if *bit { "1" } else { "0" }).collect::<Vec<_>>().join(" ")
        }
        BusAnswer::Words(words) => {
            words.iter().map(|word| format!("{word:04X}")).collect::<Vec<_>>().join(" ")
        }
        BusAnswer::Written => String::new(),
    }
}

fn print_table(first: u16, answer: &BusAnswer) {
    match answer {
        BusAnswer::Bits(bits) => {
            for (address, bit) in (u32::from(first)..).zip(bits) {
                println!("{address:>5}  {}", u8::from(*bit));
            }
        }
        BusAnswer::Words(words) => {
            println!("address    hex  unsigned  signed");
            for (address, word) in (u32::from(first)..).zip(words) {
                println!("{address:>7}   {word:04X}  {word:>8}  {:>6}", *word as i16);
            }
        }
        BusAnswer::Written => {}
    }
}
