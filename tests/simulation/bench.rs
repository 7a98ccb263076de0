//! One station's iron in a world where iron fails: relay, machine, meter, and what the world knows
//! of them that no gateway can.

use std::collections::{BTreeMap, BTreeSet};

use tapgate::core::event::{Event, SwitchReport};
use tapgate::core::ids::StationId;
use tapgate::core::site::{Station, StationKind};

use crate::plant::{Answer, PER_WH, Plant, Relay};

/// What a bus is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldOrder {
    Close,
    Open,
    ReadSwitch,
    ReadMeter,
    ReadRegister,
}

/// How a meter errs for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glitch {
    /// The register reads so.
    Shows(i64),
    /// It goes on showing what it showed when it froze.
    Frozen,
    /// NaN and sentinels: no value at all.
    NoValue,
}

/// A machine that draws this little is not under load: electronics of 15 to 25 W exist.
const LOAD_W: i64 = 55;
/// By then a bus has polled a meter that answers.
const POLLED_MS: u64 = 3_000;

pub struct Bench {
    pub id: StationId,
    pub kind: StationKind,
    pub meter: Option<String>,
    pub plant: Plant,
    pub unit_dead: bool,
    pub glitch: Option<Glitch>,
    frozen_wh: i64,
    /// The meter showed what is right since the daemon started.
    pub shown_right: bool,
    /// Since then it has not shown what is right, by the world's time.
    pub wrong_since: Option<u64>,
    /// When relay or unit last were at fault, by the world's time.
    pub fault_at: Option<u64>,
    /// How long it has been under load.
    pub loaded_ms: u64,
    /// For so long nobody can be sure what sessions are billed: the meter froze.
    pub odd_ms: u64,
    /// Sessions that were open then, or while an exchanged meter was not noticed.
    odd: BTreeSet<String>,
    /// Meters that hung here: first register, and last where it is gone.
    hung: Vec<(i64, Option<i64>)>,
    /// Of these, the one that the accounts follow.
    followed: usize,
    flowed: BTreeMap<String, i64>,
    /// Orders on this station's way along the bus are done in turn until then.
    pub busy_until: u64,
}

impl Bench {
    pub fn new(station: &Station) -> Bench {
        let mut plant = Plant::new(station);
        plant.tells_power = station.meter_tells_power;
        plant.serial = Some("S1".into());
        let first = plant.register_wh();
        Bench {
            id: station.id.clone(),
            kind: station.kind,
            meter: station.meter.as_ref().map(ToString::to_string),
            plant,
            unit_dead: false,
            glitch: None,
            frozen_wh: 0,
            shown_right: false,
            wrong_since: None,
            fault_at: None,
            loaded_ms: 0,
            odd_ms: 0,
            odd: BTreeSet::new(),
            hung: vec![(first, None)],
            followed: 0,
            flowed: BTreeMap::new(),
            busy_until: 0,
        }
    }

    pub fn is_laundry(&self) -> bool {
        self.kind != StationKind::Charger
    }

    /// Under load for so long that the meter, if there is one, has told of it.
    pub fn is_seen_under_load(&self) -> bool {
        let power = self.plant.power_w();
        // Without power a meter tells only when its register has stepped twice.
        let steps = if self.plant.tells_power { 0 } else { 2 * 3_600_000 / power.max(1) as u64 };
        self.meter.is_some()
            && self.plant.closed
            && power > LOAD_W
            && self.loaded_ms > POLLED_MS + steps
    }

    pub fn is_at_fault(&self) -> bool {
        self.unit_dead || self.plant.relay != Relay::Obeys
    }

    /// Lets time pass; what flows is noted for the session that is open, if one is. Records that
    /// come `late` say less than what flowed until they came.
    pub fn pass(&mut self, milliseconds: u64, open: Option<&str>, late: bool) {
        let odd = late || self.odd_ms > 0 || !self.is_followed();
        if let Some(session) = open.filter(|_| odd)
            && !self.odd.contains(session)
        {
            self.odd.insert(session.to_owned());
        }
        self.odd_ms = self.odd_ms.saturating_sub(milliseconds);
        // A machine's program changes within long pauses.
        let mut left = milliseconds;
        while left > 0 {
            let part = left.min(1_000);
            left -= part;
            let energy = self.plant.pass(part);
            let loaded = self.plant.closed && self.plant.power_w() > LOAD_W;
            self.loaded_ms = if loaded { self.loaded_ms + part } else { 0 };
            if energy > 0
                && let Some(session) = open
            {
                *self.flowed.entry(session.to_owned()).or_default() += energy;
            }
            if !self.plant.closed && self.plant.bypass_w == 0 {
                // Nothing changes any more.
                self.plant.pass(left);
                break;
            }
        }
    }

    /// Whether nobody can be sure what this session is billed.
    pub fn is_odd(&self, session: &str) -> bool {
        self.odd.contains(session)
    }

    pub fn flowed_wh(&self, session: &str) -> i64 {
        self.flowed.get(session).map_or(0, |energy| energy / PER_WH)
    }

    /// What the bus does, whether or not anybody hears of it.
    pub fn obey(&mut self, order: FieldOrder) {
        if self.unit_dead || self.plant.relay == Relay::Stuck {
            return;
        }
        match order {
            FieldOrder::Close => self.plant.closed = true,
            FieldOrder::Open => self.plant.closed = false,
            FieldOrder::ReadSwitch | FieldOrder::ReadMeter | FieldOrder::ReadRegister => {}
        }
    }

    /// What the bus reports.
    pub fn report(&mut self, order: FieldOrder) -> Option<Event> {
        self.obey(order);
        let id = self.id.clone();
        match order {
            FieldOrder::Close | FieldOrder::Open | FieldOrder::ReadSwitch if self.unit_dead => {
                let report = SwitchReport::Unknown;
                Some(Event::SwitchReported { station: id, report })
            }
            FieldOrder::Close | FieldOrder::Open | FieldOrder::ReadSwitch => {
                self.plant.switch_event(&id)
            }
            FieldOrder::ReadMeter | FieldOrder::ReadRegister => self.read(order),
        }
    }

    fn read(&mut self, order: FieldOrder) -> Option<Event> {
        let id = self.id.clone();
        self.meter.as_ref()?;
        if self.unit_dead {
            return Some(Event::MeterSilent { station: id });
        }
        self.plant.answer = match self.glitch {
            Some(Glitch::Shows(register)) => Answer::Shows(register),
            Some(Glitch::Frozen) => Answer::Shows(self.frozen_wh),
            Some(Glitch::NoValue) => return Some(Event::MeterSilent { station: id }),
            None => Answer::Right,
        };
        if self.glitch.is_none() {
            (self.shown_right, self.wrong_since) = (true, None);
        }
        match order {
            FieldOrder::ReadRegister => self.plant.register_event(&id),
            _ => self.plant.meter_event(&id),
        }
    }

    /// A wrong register is told from a long absence only by who saw the right one before.
    pub fn meet_another_daemon(&mut self) {
        (self.shown_right, self.busy_until) = (false, 0);
        if self.glitch.is_some_and(|glitch| matches!(glitch, Glitch::Shows(much) if much > 0)) {
            self.glitch = None;
        }
    }

    pub fn freeze(&mut self) {
        self.frozen_wh = self.plant.register_wh();
        self.glitch = Some(Glitch::Frozen);
    }

    /// Another meter takes the place of this one and starts at `register`.
    pub fn exchange(&mut self, register: i64, serial: String) {
        let now = self.plant.register_wh();
        if let Some(old) = self.hung.last_mut() {
            old.1 = Some(now);
        }
        self.plant.count_wh(register - now);
        self.hung.push((register, None));
        self.plant.serial = Some(serial);
    }

    /// Whether the accounts follow the meter that hangs there.
    pub fn is_followed(&self) -> bool {
        self.followed + 1 == self.hung.len()
    }

    fn last_of(&self, hung: usize) -> i64 {
        self.hung[hung].1.unwrap_or_else(|| self.plant.register_wh())
    }

    /// No account may be ahead of the meter that it follows.
    pub fn may_be_posted(&self, register: i64) -> Result<(), String> {
        let (first, last) = (self.hung[self.followed].0, self.last_of(self.followed));
        if (first..=last).contains(&register) {
            return Ok(());
        }
        Err(format!("{} is accounted for up to {register} Wh, it shows {last} Wh", self.id))
    }

    /// An account goes over to another meter only where there is one.
    pub fn follow(&mut self, old: i64, new: i64) -> Result<(), String> {
        self.may_be_posted(old)?;
        if self.is_followed() {
            return Err(format!("{} was not exchanged at {old} Wh, {new} Wh", self.id));
        }
        self.followed = self.hung.len() - 1;
        self.may_be_posted(new)
    }
}
