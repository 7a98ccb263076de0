//! One station's iron: a relay, a machine behind it and a meter before it.

use tapgate::core::event::{Event, Pace, Reading, SwitchReport, Vehicle};
use tapgate::core::ids::StationId;
use tapgate::core::site::Station;

/// What a machine draws, second by second of its program: `(seconds, watts)`. The last one lasts.
pub type Machine = Vec<(u64, i64)>;

/// How a relay behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    Obeys,
    /// Stays as it is.
    Stuck,
    /// Does as told and never answers.
    Silent,
}

/// How a meter behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Right,
    /// Answers with this register.
    Shows(i64),
    Silent,
    /// Has not answered yet.
    Slow,
}

#[derive(Clone)]
pub struct Plant {
    pub relay: Relay,
    pub closed: bool,
    pub machine: Machine,
    pub answer: Answer,
    pub vehicle: Option<Vehicle>,
    pub serial: Option<String>,
    /// The contactor feedback answers.
    pub feedback: bool,
    pub has_meter: bool,
    pub tells_power: bool,
    pub pace: Pace,
    pub next_read: u64,
    /// Its power point hangs at this.
    pub hung_power_w: Option<i64>,
    /// Draws past the relay, in watts: a bypass.
    pub bypass_w: i64,
    /// The machine has had power for this long.
    pub ran_ms: u64,
    /// Milliwatts times milliseconds.
    energy: i64,
}

/// Milliwatts times milliseconds.
pub const PER_WH: i64 = 1_000 * 3_600_000;

impl Plant {
    pub fn new(station: &Station) -> Plant {
        Plant {
            relay: Relay::Obeys,
            closed: false,
            machine: vec![(1, 0)],
            answer: Answer::Right,
            vehicle: None,
            serial: None,
            feedback: station.has_feedback,
            has_meter: station.meter.is_some(),
            tells_power: true,
            pace: Pace::Idle,
            next_read: 0,
            hung_power_w: None,
            bypass_w: 0,
            ran_ms: 0,
            energy: 5_000 * PER_WH,
        }
    }

    /// Somebody fills the machine and presses its own start.
    pub fn load(&mut self, machine: &[(u64, i64)]) {
        self.machine = machine.to_vec();
        self.ran_ms = 0;
    }

    pub fn power_w(&self) -> i64 {
        if self.closed { self.bypass_w + self.draw_w() } else { self.bypass_w }
    }

    fn draw_w(&self) -> i64 {
        let mut left = self.ran_ms / 1_000;
        for (seconds, watts) in &self.machine {
            if left < *seconds {
                return *watts;
            }
            left -= seconds;
        }
        self.machine.last().map_or(0, |(_, watts)| *watts)
    }

    /// The machine's program is through.
    pub fn is_done(&self) -> bool {
        let program: u64 = self.machine.iter().rev().skip(1).map(|(seconds, _)| seconds).sum();
        self.ran_ms / 1_000 >= program
    }

    /// Lets time pass; what was drawn in it, in milliwatts times milliseconds.
    pub fn pass(&mut self, milliseconds: u64) -> i64 {
        let energy = self.power_w() * 1_000 * milliseconds as i64;
        self.energy += energy;
        if self.closed {
            self.ran_ms += milliseconds;
        }
        energy
    }

    pub fn register_wh(&self) -> i64 {
        self.energy / PER_WH
    }

    pub fn count_wh(&mut self, energy_wh: i64) {
        self.energy += energy_wh * PER_WH;
    }

    pub fn pace_ms(&self) -> u64 {
        match self.pace {
            Pace::Idle => 10_000,
            Pace::Running => 1_000,
            Pace::Ending => 200,
        }
    }

    pub fn close(&mut self, id: &StationId) -> Event {
        self.switch(true, id)
    }

    pub fn open(&mut self, id: &StationId) -> Event {
        self.switch(false, id)
    }

    fn switch(&mut self, close: bool, id: &StationId) -> Event {
        if self.relay != Relay::Stuck {
            self.closed = close;
        }
        let station = id.clone();
        self.switch_event(id)
            .unwrap_or(Event::SwitchReported { station, report: SwitchReport::Unknown })
    }

    pub fn switch_event(&self, id: &StationId) -> Option<Event> {
        let feedback = self.feedback.then_some(self.closed);
        let report = match (self.relay, self.closed) {
            (Relay::Silent, _) => SwitchReport::Unknown,
            (Relay::Obeys | Relay::Stuck, true) => SwitchReport::Closed { feedback },
            (Relay::Obeys | Relay::Stuck, false) => SwitchReport::Open { feedback },
        };
        Some(Event::SwitchReported { station: id.clone(), report })
    }

    pub fn meter_event(&mut self, id: &StationId) -> Option<Event> {
        let station = id.clone();
        let register = match self.answer {
            Answer::Right => self.register_wh(),
            Answer::Shows(register) => register,
            Answer::Silent => return Some(Event::MeterSilent { station }),
            Answer::Slow => return None,
        };
        let reading = Reading {
            energy_wh: Some(register),
            power_mw: self.tells_power.then(|| self.hung_power_w.unwrap_or(self.power_w()) * 1_000),
            serial: self.serial.clone(),
            vehicle: self.vehicle,
        };
        Some(Event::MeterRead { station, reading })
    }

    /// The same for a start, which reads the register alone.
    pub fn register_event(&mut self, id: &StationId) -> Option<Event> {
        let mut event = self.meter_event(id);
        if let Some(Event::MeterRead { reading, .. }) = &mut event {
            (reading.power_mw, reading.vehicle) = (None, None);
        }
        event
    }
}
