//! What is in the room and what it does as time passes. Pure: time is told to it.

use std::collections::BTreeMap;
use std::time::Duration;

/// A milliwatt-hour in microjoules (milliwatts times milliseconds).
const MICROJOULES_PER_MWH: u128 = 3_600_000;

/// Power over the time since the machine got power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadProfile {
    /// One after the other.
    pub steps: Vec<Step>,
    /// Drawn after the last step.
    pub standby_mw: u32,
}

/// A stretch of constant power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Step {
    pub duration: Duration,
    pub power_w: u32,
}

impl LoadProfile {
    /// A washing cycle: fill, heat, wash with soak pauses, spin, standby.
    pub fn washer() -> LoadProfile {
        LoadProfile::of(&[(30, 12), (600, 2_050), (900, 180), (240, 3), (600, 190), (420, 520)])
    }

    /// A condenser dryer: heat, cool down, anti-crease turns.
    pub fn dryer() -> LoadProfile {
        LoadProfile::of(&[(1_800, 1_950), (600, 900), (300, 146), (240, 2), (20, 180), (240, 2)])
    }

    /// A car that charges for three hours.
    pub fn car() -> LoadProfile {
        LoadProfile::of(&[(20, 0), (10_800, 7_360), (900, 1_500)])
    }

    /// Steps of seconds and watts, then a standby of 1.8 W.
    pub fn of(steps: &[(u64, u32)]) -> LoadProfile {
        let step = |(seconds, power_w): &(u64, u32)| Step {
            duration: Duration::from_secs(*seconds),
            power_w: *power_w,
        };
        LoadProfile { steps: steps.iter().map(step).collect(), standby_mw: 1_800 }
    }

    /// Power at this time after power-on, in milliwatts, and when that ends.
    fn at(&self, since: Duration) -> (u64, Option<Duration>) {
        let mut end = Duration::ZERO;
        for step in &self.steps {
            end += step.duration;
            if since < end {
                return (u64::from(step.power_w) * 1_000, Some(end));
            }
        }
        (u64::from(self.standby_mw), None)
    }

    /// Energy between two times after power-on, in microjoules.
    fn energy_uj(&self, from: Duration, to: Duration) -> u128 {
        let (mut at, mut energy) = (from, 0);
        while at < to {
            let (power, end) = self.at(at);
            let end = end.map_or(to, |end| end.min(to));
            energy += u128::from(power) * (end.as_millis() - at.as_millis());
            at = end;
        }
        energy
    }
}

/// A machine with its meter, behind a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Unit id of the meter.
    pub meter: u8,
    /// Serial number of the meter.
    pub serial: u32,
    /// What the meter shows at first.
    pub start_wh: i64,
    /// Unit id of the relay board and number of the relay, from 0.
    pub relay: (u8, u16),
    /// What it draws.
    pub load: LoadProfile,
}

/// A machine with its meter's count.
#[derive(Debug)]
struct Metered {
    machine: Machine,
    counted_uj: u128,
    on_since: Option<Duration>,
}

#[derive(Debug, Default)]
struct Board {
    relays: Vec<bool>,
    inputs: Vec<bool>,
}

/// How a unit misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Glitch {
    pub(super) silent: bool,
    pub(super) delay: Duration,
}

/// Everything in the room. Whole milliseconds only, so that sums are exact.
#[derive(Debug, Default)]
pub(super) struct Room {
    now: Duration,
    boards: BTreeMap<u8, Board>,
    meters: BTreeMap<u8, Metered>,
    glitches: BTreeMap<u8, Glitch>,
}

impl Room {
    pub(super) fn add_board(&mut self, unit: u8, relays: usize, inputs: usize) {
        let board = Board { relays: vec![false; relays], inputs: vec![false; inputs] };
        self.boards.insert(unit, board);
    }

    pub(super) fn add_machine(&mut self, machine: Machine) {
        let wh = u128::try_from(machine.start_wh).unwrap_or(0);
        let counted_uj = wh * 1_000 * MICROJOULES_PER_MWH;
        let on_since = self.relay(machine.relay.0, machine.relay.1).then_some(self.now);
        self.meters.insert(machine.meter, Metered { machine, counted_uj, on_since });
    }

    /// Lets time pass until `now`.
    pub(super) fn advance(&mut self, now: Duration) {
        let now = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        if now <= self.now {
            return;
        }
        for metered in self.meters.values_mut() {
            if let Some(on) = metered.on_since {
                metered.counted_uj += metered.machine.load.energy_uj(self.now - on, now - on);
            }
        }
        self.now = now;
    }

    pub(super) fn set_relay(&mut self, unit: u8, relay: u16, closed: bool) {
        let board = self.boards.get_mut(&unit);
        if let Some(coil) = board.and_then(|board| board.relays.get_mut(usize::from(relay))) {
            *coil = closed;
        }
        for metered in self.meters.values_mut() {
            if metered.machine.relay == (unit, relay) {
                metered.on_since = closed.then(|| metered.on_since.unwrap_or(self.now));
            }
        }
    }

    pub(super) fn reset_board(&mut self, unit: u8) {
        let relays = self.boards.get(&unit).map_or(0, |board| board.relays.len());
        for relay in 0..relays {
            self.set_relay(unit, relay as u16, false);
        }
    }

    pub(super) fn relay(&self, unit: u8, relay: u16) -> bool {
        let relays = self.boards.get(&unit).map(|board| &board.relays);
        relays.and_then(|relays| relays.get(usize::from(relay))).copied().unwrap_or(false)
    }

    /// The relays of a board; `None` for a unit that has none.
    pub(super) fn relays(&self, unit: u8) -> Option<&[bool]> {
        self.boards.get(&unit).map(|board| board.relays.as_slice())
    }

    /// The inputs of a board; `None` for a unit that has none.
    pub(super) fn inputs(&self, unit: u8) -> Option<&[bool]> {
        self.boards.get(&unit).map(|board| board.inputs.as_slice())
    }

    pub(super) fn set_input(&mut self, unit: u8, input: u16, on: bool) {
        let board = self.boards.get_mut(&unit);
        if let Some(input) = board.and_then(|board| board.inputs.get_mut(usize::from(input))) {
            *input = on;
        }
    }

    /// The serial number of a meter; `None` for a unit that is none.
    pub(super) fn serial(&self, unit: u8) -> Option<u32> {
        self.meters.get(&unit).map(|metered| metered.machine.serial)
    }

    pub(super) fn total_mwh(&self, meter: u8) -> i64 {
        let counted = self.meters.get(&meter).map_or(0, |metered| metered.counted_uj);
        i64::try_from(counted / MICROJOULES_PER_MWH).unwrap_or(i64::MAX)
    }

    pub(super) fn power_mw(&self, meter: u8) -> i64 {
        let Some(metered) = self.meters.get(&meter) else { return 0 };
        let power = metered.on_since.map(|on| metered.machine.load.at(self.now - on).0);
        power.and_then(|power| i64::try_from(power).ok()).unwrap_or(0)
    }

    pub(super) fn silence(&mut self, unit: u8, silent: bool) {
        self.glitches.entry(unit).or_default().silent = silent;
    }

    pub(super) fn delay(&mut self, unit: u8, delay: Duration) {
        self.glitches.entry(unit).or_default().delay = delay;
    }

    pub(super) fn glitch(&self, unit: u8) -> Glitch {
        self.glitches.get(&unit).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(load: LoadProfile) -> Room {
        let mut room = Room::default();
        room.add_board(1, 8, 8);
        let machine = Machine { meter: 11, serial: 1, start_wh: 5_000, relay: (1, 0), load };
        room.add_machine(machine);
        room
    }

    #[test]
    fn meters_count_every_milliwatt_hour_however_often_they_are_looked_at() {
        let load = LoadProfile::of(&[(60, 2_000), (60, 0), (3_600, 100)]);
        let (mut often, mut once) = (room(load.clone()), room(load));
        for room in [&mut often, &mut once] {
            room.advance(Duration::from_secs(10));
            room.set_relay(1, 0, true);
        }

        for step in 0..10_000 {
            often.advance(Duration::from_secs(10) + Duration::from_millis(step * 373));
        }
        once.advance(Duration::from_secs(10) + Duration::from_millis(9_999 * 373));

        assert_eq!(often.total_mwh(11), once.total_mwh(11));
        // 2000 W for a minute and 100 W for an hour, then 1.8 W for nine seconds.
        assert_eq!(once.total_mwh(11) / 1_000, 5_000 + 33 + 100);
    }

    #[test]
    fn an_open_relay_stops_the_machine() {
        let mut room = room(LoadProfile::of(&[(3_600, 1_000)]));
        room.set_relay(1, 0, true);
        room.advance(Duration::from_secs(1_800));
        assert_eq!(room.power_mw(11), 1_000_000);

        room.reset_board(1);
        room.advance(Duration::from_secs(3_600));

        assert_eq!((room.power_mw(11), room.total_mwh(11)), (0, 5_500_000));
    }
}
