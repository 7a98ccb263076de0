//! The register map of a device model, as data. Addresses are 0-based, as on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use super::wiring::Parity;

/// A device model.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the keys of a profile file, see spec: config")]
pub struct Profile {
    pub name: String,
    pub class: Class,
    pub vendor: String,
    pub model: String,
    pub source: String,
    /// How well the sources support the file; `None` where its author does not say.
    pub confidence: Option<Confidence>,
    pub defaults: Defaults,
    /// At most 125 by the specification; many devices take less.
    pub max_registers_per_read: u16,
    /// Unused registers or coils that a read may cover to fetch two points at once; `None` where
    /// the device answers for addresses that it does not use.
    pub max_hole: Option<u16>,
    /// Silence that the device needs between two requests.
    pub min_gap: Duration,
    /// What it needs between two writes, where that is more.
    pub min_write_gap: Duration,
    /// Longest answer time, where the device is slower than the bus expects.
    pub timeout: Option<Duration>,
    pub points: BTreeMap<String, Point>,
    /// Sent on every (re)connect, in order.
    pub startup: Vec<PointWrite>,
    /// Written in time so that a charger does not fall to its fail-safe.
    pub heartbeat: Option<Heartbeat>,
    /// What makes a charger start, in order; empty: `enable` is written 1.
    pub start: Vec<PointWrite>,
    /// What makes a charger stop, in order; empty: `enable` is written 0.
    pub stop: Vec<PointWrite>,
    /// Set-points (`current_limit`) are written again this often.
    pub refresh: Option<Duration>,
    /// What the outputs do when the gateway goes silent.
    pub on_silence: Option<OnSilence>,
    /// How a scan knows this model.
    pub identify: Option<Identify>,
}

impl Profile {
    /// A model without points, for whoever builds one in code.
    pub fn new(name: &str, class: Class) -> Profile {
        Profile {
            name: name.into(),
            class,
            vendor: String::new(),
            model: String::new(),
            source: String::new(),
            confidence: None,
            defaults: Defaults::default(),
            max_registers_per_read: 125,
            max_hole: None,
            min_gap: Duration::ZERO,
            min_write_gap: Duration::ZERO,
            timeout: None,
            points: BTreeMap::new(),
            startup: Vec::new(),
            heartbeat: None,
            start: Vec::new(),
            stop: Vec::new(),
            refresh: None,
            on_silence: None,
            identify: None,
        }
    }
}

impl Profile {
    /// What the file alone leaves open, one line each: for whoever checks a profile.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let wide = |point: &&Point| {
            point.value.registers() > 1 && !matches!(point.value, ValueType::String(_))
        };
        let mut orders = self.points.values().filter(wide).map(|point| point.word_order);
        if let Some(first) = orders.next()
            && orders.any(|order| order != first)
        {
            doubts.push("its points differ in word_order: few devices mix them".into());
        }
        if self.class == Class::Meter && !self.points.contains_key("voltage") {
            doubts.push("without [points.voltage] nobody can see a wrong word_order".into());
        }
        let power = matches!(self.class, Class::Relay | Class::Charger);
        if power && self.on_silence.is_none() {
            doubts
                .push("without on_silence nobody knows what happens when the gateway dies".into());
        }
        doubts
    }
}

/// How well the sources of a profile support it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// The vendor's document, or two sources that do not share a root.
    High,
    /// One good source.
    Medium,
}

/// The register that tells a model: reading it changes nothing on any device known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identify {
    /// Name of the point.
    pub point: String,
    /// What it shows on this model, as text.
    pub equals: Vec<String>,
}

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Class {
    Relay,
    Meter,
    Charger,
    Io,
}

/// As delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Defaults {
    pub baud: Option<u32>,
    pub parity: Option<Parity>,
    pub stop_bits: Option<u8>,
    pub unit: Option<u8>,
}

/// A named register, coil or input.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Where it lies.
    pub table: Table,
    /// 0-based wire address.
    pub address: u16,
    /// How its registers are read.
    pub value: ValueType,
    /// Order of its 16-bit words, and of the bytes in them.
    pub word_order: WordOrder,
    /// `value = raw × scale`, in the unit given.
    pub scale: Scale,
    /// `Wh`, `kWh`, `W`, `kW`, `A`, `mA`, `s`, ... where it has one.
    pub unit: Option<String>,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be read.
    pub readable: bool,
    /// Raw values that mean "no value".
    pub sentinels: Vec<i64>,
    /// `(shift, width)`: only these bits of the raw value count.
    pub bits: Option<(u8, u8)>,
    /// Name of the point whose value is the power of ten of this one.
    pub exponent: Option<String>,
    /// Where and how it is written, if not where and as it is read.
    pub write: Option<WriteAs>,
    /// What the values of an enumeration mean (`A`, `B`, `C`, `F`).
    pub values: BTreeMap<String, String>,
    /// Names of points whose values are added to this one.
    pub plus: Vec<String>,
}

/// The four tables of the Modbus data model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

/// How registers become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub enum ValueType {
    Bool,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// ASCII, this many registers.
    String(u16),
}

impl Point {
    /// A point that is read as it is.
    pub fn new(table: Table, address: u16, value: ValueType) -> Point {
        Point {
            table,
            address,
            value,
            word_order: WordOrder::Big,
            scale: Scale::ONE,
            unit: None,
            writable: false,
            readable: true,
            sentinels: Vec::new(),
            bits: None,
            exponent: None,
            write: None,
            values: BTreeMap::new(),
            plus: Vec::new(),
        }
    }

    /// Whether reading shows what was written.
    pub fn reads_back(&self) -> bool {
        self.readable && self.write.as_ref().is_none_or(|write| write.address.is_none())
    }

    /// Whether it stands for yes and no, whatever the register holds.
    pub fn is_yes_or_no(&self) -> bool {
        self.value == ValueType::Bool || self.write.as_ref().is_some_and(|write| write.on.is_some())
    }

    /// The smallest step of an energy register, in whole watt-hours, at least 1.
    pub fn resolution_wh(&self) -> i64 {
        let unit_wh = match self.unit.as_deref() {
            Some("MWh") => 1_000_000,
            Some("kWh") => 1_000,
            Some(_) | None => 1,
        };
        if self.exponent.is_some() {
            // Meters with a run-time exponent step by up to 10^2 Wh.
            return 100;
        }
        match self.value {
            // An f32 of kWh steps by 16 Wh once a meter has counted 131,072 kWh.
            ValueType::F32 => 16,
            ValueType::Bool
            | ValueType::U16
            | ValueType::I16
            | ValueType::U32
            | ValueType::I32
            | ValueType::U64
            | ValueType::I64
            | ValueType::F64
            | ValueType::String(_) => {
                let step = i128::from(self.scale.numerator) * unit_wh;
                let whole = step.div_euclid(i128::from(self.scale.denominator.max(1)));
                i64::try_from(whole).unwrap_or(1).max(1)
            }
        }
    }
}

impl ValueType {
    /// How many registers (or coils) a value takes.
    pub fn registers(self) -> u16 {
        match self {
            ValueType::Bool | ValueType::U16 | ValueType::I16 => 1,
            ValueType::U32 | ValueType::I32 | ValueType::F32 => 2,
            ValueType::U64 | ValueType::I64 | ValueType::F64 => 4,
            ValueType::String(registers) => registers,
        }
    }
}

/// Order of the 16-bit words of a value, and of the bytes within each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WordOrder {
    /// ABCD: high word first.
    #[default]
    Big,
    /// CDAB: low word first.
    Little,
    /// BADC.
    BigByteSwapped,
    /// DCBA.
    LittleByteSwapped,
}

/// An exact decimal factor, so that no watt-hour is lost to a binary fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "numerator / denominator")]
pub struct Scale {
    pub numerator: i64,
    pub denominator: i64,
}

impl Scale {
    /// The value as it is.
    pub const ONE: Scale = Scale { numerator: 1, denominator: 1 };
}

/// Another address or other values for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteAs {
    /// Where, if not where it is read.
    pub address: Option<u16>,
    /// Value for true.
    pub on: Option<u16>,
    /// Value for false.
    pub off: Option<u16>,
    /// By function 16 even where the value is one register: the device lacks function 6.
    pub multiple: bool,
    /// So many times in one request, one after the other: a value per phase.
    pub copies: u16,
}

impl Default for WriteAs {
    fn default() -> WriteAs {
        WriteAs { address: None, on: None, off: None, multiple: false, copies: 1 }
    }
}

/// One value written to one point, in the point's unit (raw = value / scale).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct PointWrite {
    pub point: String,
    pub value: i64,
}

/// A write that must be repeated in time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Heartbeat {
    pub point: String,
    pub value: i64,
    pub interval: Duration,
}

/// What an output does when the gateway goes silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words say it")]
pub enum OnSilence {
    Keep,
    Open,
    Limit,
}
