//! One meter's accounts: which register is believed, and what of it is not on disk yet.
//!
//! Every reading posts its difference to exactly one account: the open session, or nobody
//! (unattributed). `persisted` is the register up to which the ledger accounts for everything;
//! `believed` runs ahead of it until the next record catches up. After a crash only `persisted` is
//! left, and the next reading posts the whole difference: nothing is lost, nothing is doubled.

use std::time::Duration;

use crate::core::event::Reading;
use crate::core::flow::{Flow, Power};
use crate::core::ids::DeviceId;
use crate::core::standstill::Standstill;
use crate::core::suspicion::Suspicion;
use crate::core::time::{Stamp, Uptime};

/// What a meter has shown and what of it is accounted for.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Which device.
    pub device: DeviceId,
    /// Its serial number, once read.
    pub serial: Option<String>,
    /// The smallest step that it can show.
    resolution_wh: i64,
    /// Most power that its station can draw.
    max_power_w: u32,
    /// Whether it tells its power; else that follows from the register.
    tells_power: bool,
    flow: Option<Flow>,
    account: Option<Account>,
    power: Option<(Power, Uptime)>,
    /// When the account was last posted is not known: only that it was, before this epoch.
    gap_unknown: bool,
    /// Its serial number became known after its account was opened.
    serial_unrecorded: bool,
    suspicion: Option<Suspicion>,
    new_serial: Option<String>,
    /// The register that was taken for an old meter's, and when it was last believed. If it comes
    /// back it was the same meter all along: its lifetime must not become energy.
    replaced: Option<(i64, Stamp)>,
    standstill: Standstill,
    /// Its last answer brought no register, or there was none.
    is_silent: bool,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    persisted_wh: i64,
    persisted_at: Stamp,
    believed_wh: i64,
    believed_at: Stamp,
}

/// What a reading turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No register in it.
    NoRegister,
    /// The first register ever seen of this meter.
    Commissioned,
    /// Believed; `gap` is the time since the one before, where it is known.
    Believed {
        /// Time since the reading before.
        gap: Option<Duration>,
    },
    /// A rise beyond `max_power` that persisted: believed after all.
    BelievedLate,
    /// Cannot be right; the old value stands.
    Held,
    /// Another meter is in its place, see [`Meter::replace`].
    Replaced,
    /// The one that had been replaced at this register is back: it was the same all along.
    Returned {
        /// Its last register before.
        old_wh: i64,
    },
}

impl Verdict {
    /// Whether the register counts from now on.
    pub fn is_believed(&self) -> bool {
        match self {
            Verdict::Commissioned | Verdict::Replaced | Verdict::BelievedLate => true,
            Verdict::Believed { .. } | Verdict::Returned { .. } => true,
            Verdict::NoRegister | Verdict::Held => false,
        }
    }

    /// Whether it is the same meter's register, believed.
    fn follows_the_register(&self) -> bool {
        matches!(self, Verdict::Commissioned | Verdict::Believed { .. } | Verdict::BelievedLate)
    }
}

impl Meter {
    /// A meter that has not been read yet.
    pub fn new(device: DeviceId, resolution_wh: i64, max_power_w: u32, tells_power: bool) -> Meter {
        Meter {
            device,
            serial: None,
            resolution_wh,
            max_power_w,
            tells_power,
            flow: None,
            gap_unknown: false,
            serial_unrecorded: false,
            account: None,
            power: None,
            suspicion: None,
            new_serial: None,
            replaced: None,
            standstill: Standstill::default(),
            is_silent: false,
        }
    }

    /// Goes on from what the store knows.
    pub fn recover(&mut self, serial: Option<String>, cursor_wh: i64, at: Stamp) {
        self.serial = serial;
        self.account = Some(Account {
            persisted_wh: cursor_wh,
            persisted_at: at,
            believed_wh: cursor_wh,
            believed_at: at,
        });
    }

    /// The account came over into a new epoch, whose opening tells nothing of when the meter was
    /// read.
    pub fn forget_when_read(&mut self) {
        self.gap_unknown = true;
    }

    /// The latest believed register.
    pub fn register_wh(&self) -> Option<i64> {
        self.account.map(|account| account.believed_wh)
    }

    /// Believed but not in the ledger yet, as `(from, to)`; `None` where that is nothing.
    pub fn outstanding(&self) -> Option<(i64, i64)> {
        let account = self.account?;
        (account.believed_wh > account.persisted_wh)
            .then_some((account.persisted_wh, account.believed_wh))
    }

    /// Since when the outstanding energy flowed.
    pub fn persisted_at(&self) -> Option<Stamp> {
        self.account.map(|account| account.persisted_at)
    }

    /// When the believed register was read.
    pub(super) fn believed_at(&self) -> Option<Stamp> {
        self.account.map(|account| account.believed_at)
    }

    /// A record accounts for everything up to the believed register.
    pub fn settle(&mut self, now: Stamp) {
        if let Some(account) = &mut self.account {
            account.persisted_wh = account.believed_wh;
            account.persisted_at = now;
        }
    }

    /// The last power in milliwatts, and since when it is known to be no more than that.
    pub fn power(&self) -> Option<(i64, Uptime)> {
        self.power.map(|(power, at)| match power {
            Power::Is(power_mw) => (power_mw, at),
            Power::AtMost(power_mw, since) => (power_mw, since),
        })
    }

    /// The power is somewhere below, nobody knows where.
    pub fn tells_only_a_bound(&self) -> bool {
        matches!(self.power, Some((Power::AtMost(..), _)))
    }

    /// What the last reading told of the power, if anything.
    pub(super) fn power_at(&self, now: Uptime) -> Option<Power> {
        self.power.filter(|(_, at)| *at == now).map(|(power, _)| power)
    }

    /// The meter does not answer: its power is no longer known.
    pub fn lose_power_reading(&mut self) {
        self.power = None;
        self.is_silent = true;
    }

    /// Whether it had no register to tell when it was asked last.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The switch moved: what flowed before tells nothing of now.
    pub fn forget_flow(&mut self) {
        self.flow = None;
    }

    /// Whether the last register was not believed, and what it means is not clear yet.
    pub fn is_doubted(&self) -> bool {
        self.suspicion.is_some()
    }

    /// Once after its serial number became known for an account that was opened without it.
    pub fn take_unrecorded_serial(&mut self) -> bool {
        std::mem::take(&mut self.serial_unrecorded)
    }

    /// Takes a reading in and says what it turned out to be.
    pub fn judge(&mut self, reading: &Reading, now: Stamp) -> Verdict {
        self.is_silent = !has_register(reading);
        self.power = reading.power_mw.map(|power| (Power::Is(power), now.uptime));
        self.note_serial(reading.serial.as_deref());
        let before_wh = self.register_wh();
        let verdict = self.judge_register(reading, now);
        let shown = reading.energy_wh.zip(reading.power_mw);
        self.standstill.on_reading(shown, before_wh, now.uptime, self.resolution_wh);
        // A register that is doubted, or another meter's, tells no power: the one before it stands
        // still for other reasons.
        if !self.tells_power && verdict.follows_the_register() {
            self.power = self.power_from_register(now.uptime).map(|power| (power, now.uptime));
        }
        verdict
    }

    /// The same for the first reading after an exchange that a technician told of: whatever it
    /// shows, it is another meter's.
    pub fn judge_exchanged(&mut self, reading: &Reading, now: Stamp) -> Verdict {
        if !has_register(reading) || self.account.is_none() {
            return self.judge(reading, now);
        }
        self.is_silent = false;
        self.power = reading.power_mw.map(|power| (Power::Is(power), now.uptime));
        self.note_serial(reading.serial.as_deref());
        Verdict::Replaced
    }

    fn power_from_register(&mut self, now: Uptime) -> Option<Power> {
        let register = self.register_wh()?;
        let flow = self.flow.get_or_insert(Flow::new(register, now));
        Some(flow.on_register(register, self.resolution_wh, now))
    }

    fn judge_register(&mut self, reading: &Reading, now: Stamp) -> Verdict {
        let Some(register) = reading.energy_wh.filter(|register| *register >= 0) else {
            return Verdict::NoRegister;
        };
        let Some(account) = self.account else {
            self.recover(reading.serial.clone().or(self.serial.clone()), register, now);
            return Verdict::Commissioned;
        };
        let gap = elapsed(account.believed_at, now).filter(|_| !self.gap_unknown);
        self.gap_unknown = false;
        let falling = register < account.believed_wh || self.new_serial.is_some();
        if !falling && self.is_possible(register - account.believed_wh, gap) {
            self.suspicion = None;
            self.believe(register, now);
            return Verdict::Believed { gap };
        }
        // Another serial number says enough, however fast the new meter counts.
        let other = self.new_serial.is_some();
        let possible = |step_wh, gap| other || self.is_possible(step_wh, Some(gap));
        let suspicion = Suspicion::grown(self.suspicion, !falling, register, now.uptime, possible);
        self.suspicion = Some(suspicion).filter(|suspicion| !suspicion.has_matured());
        if self.suspicion.is_some() {
            return Verdict::Held;
        }
        if falling {
            return Verdict::Replaced;
        }
        if let Some((old_wh, _)) = self.replaced.filter(|_| self.is_back(register, now)) {
            return Verdict::Returned { old_wh };
        }
        self.believe(register, now);
        Verdict::BelievedLate
    }

    /// Puts the new meter's register in the old one's place; the old one must be settled before.
    pub fn replace(&mut self, register_wh: i64, now: Stamp) {
        let serial = self.new_serial.take().or(self.serial.take());
        (self.suspicion, self.flow) = (None, None);
        self.replaced = self.account.map(|old| (old.believed_wh, old.believed_at));
        self.recover(serial, register_wh, now);
    }

    /// Whether this is the register that was replaced before, and what it can have counted since.
    fn is_back(&self, register_wh: i64, now: Stamp) -> bool {
        self.replaced.is_some_and(|(old_wh, at)| {
            register_wh >= old_wh && self.is_possible(register_wh - old_wh, elapsed(at, now))
        })
    }

    /// The serial number that [`replace`](Meter::replace) will take over.
    pub fn next_serial(&self) -> Option<String> {
        self.new_serial.clone().or(self.serial.clone())
    }

    fn note_serial(&mut self, serial: Option<&str>) {
        let Some(serial) = serial else { return };
        match &self.serial {
            None => {
                self.serial = Some(serial.into());
                self.serial_unrecorded = self.account.is_some();
            }
            Some(known) if known == serial => self.new_serial = None,
            Some(_) => self.new_serial = Some(serial.into()),
        }
    }

    /// Whether it has just become clear that the register stands still although power flows.
    pub(super) fn take_frozen(&mut self) -> bool {
        self.standstill.take_news()
    }

    pub(super) fn believe(&mut self, register: i64, now: Stamp) {
        if let Some(account) = &mut self.account {
            account.believed_wh = register;
            account.believed_at = now;
        }
    }

    /// At most `max_power` over the time, plus a fifth, plus one step of the register.
    fn is_possible(&self, step_wh: i64, gap: Option<Duration>) -> bool {
        let Some(gap) = gap else { return true };
        let milliseconds = i128::try_from(gap.as_millis()).unwrap_or(i128::MAX);
        let most = i128::from(self.max_power_w) * milliseconds * 12 / (10 * 3_600_000);
        i128::from(step_wh) <= most + i128::from(self.resolution_wh)
    }
}

/// Whether it shows a register that one can have; some meters show -1 for none.
fn has_register(reading: &Reading) -> bool {
    reading.energy_wh.is_some_and(|register| register >= 0)
}

/// Time between two stamps; `None` where no clock can tell.
pub fn elapsed(earlier: Stamp, later: Stamp) -> Option<Duration> {
    if earlier.boot == later.boot {
        return Some(later.uptime.since(earlier.uptime));
    }
    (earlier.synced && later.synced).then(|| later.wall - earlier.wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::Wall;

    fn second(second: u64) -> Stamp {
        let wall = Wall(1_795_341_600_000 + 1000 * second as i64);
        Stamp { boot: 1, uptime: Uptime(1000 * second), wall, synced: true }
    }

    fn shows(register: i64) -> Reading {
        Reading { energy_wh: Some(register), ..Reading::default() }
    }

    fn meter_at(register: i64) -> Meter {
        let mut meter = Meter::new("meter-1".into(), 1, 4_000, true);
        assert_eq!(meter.judge(&shows(register), second(0)), Verdict::Commissioned);
        meter
    }

    #[test]
    fn believes_what_the_machine_can_have_drawn() {
        let mut meter = meter_at(5_000);

        let verdict = meter.judge(&shows(5_002), second(1));

        assert_eq!(verdict, Verdict::Believed { gap: Some(Duration::from_secs(1)) });
        assert_eq!(meter.outstanding(), Some((5_000, 5_002)));
        meter.settle(second(1));
        assert_eq!(meter.outstanding(), None);
    }

    #[test]
    fn holds_zero_backward_steps_and_spikes() {
        let mut meter = meter_at(5_000);
        for glitch in [0, 4_999, 9_000] {
            assert_eq!(meter.judge(&shows(glitch), second(1)), Verdict::Held);
        }
        assert_eq!(meter.register_wh(), Some(5_000));
        assert_eq!(meter.judge(&Reading::default(), second(2)), Verdict::NoRegister);
    }

    #[test]
    fn a_register_that_stays_backward_is_another_meter() {
        let mut meter = meter_at(5_000);
        for read in 0..4 {
            assert_eq!(meter.judge(&shows(12), second(1 + 20 * read)), Verdict::Held);
        }
        assert_eq!(meter.judge(&shows(12), second(81)), Verdict::Replaced);
        meter.replace(12, second(81));
        assert_eq!(meter.register_wh(), Some(12));
        assert_eq!(meter.outstanding(), None);
    }

    #[test]
    fn a_doubted_register_tells_no_power() {
        let mut meter = Meter::new("meter-1".into(), 1, 4_000, false);
        for (register, at) in [(5_000, 0), (5_001, 2), (5_002, 4)] {
            let _ = meter.judge(&shows(register), second(at));
        }
        assert_eq!(meter.power().map(|(power_mw, _)| power_mw), Some(1_800_000));
        for at in 5..50 {
            assert_eq!(meter.judge(&shows(9_000_000), second(at)), Verdict::Held);
            assert_eq!(meter.power(), None, "at {at} s");
        }
        let _ = meter.judge(&shows(5_025), second(50));
        assert_eq!(meter.power().map(|(power_mw, _)| power_mw), Some(1_800_000));
    }

    #[test]
    fn another_meter_tells_no_power_before_it_has_stepped() {
        let mut meter = Meter::new("meter-1".into(), 1, 4_000, false);
        assert_eq!(meter.judge(&shows(5_000), second(0)), Verdict::Commissioned);
        for at in 1..61 {
            assert_eq!(meter.judge(&shows(12), second(at)), Verdict::Held);
        }
        assert_eq!(meter.judge(&shows(12), second(61)), Verdict::Replaced);
        assert_eq!(meter.power(), None);
        meter.replace(12, second(61));
        let _ = meter.judge(&shows(12), second(62));
        assert!(meter.tells_only_a_bound());
        assert_eq!(meter.power().map(|(_, since)| since), Some(second(62).uptime));
    }

    #[test]
    fn what_is_no_register_is_no_exchange_either() {
        let mut meter = meter_at(5_000);
        for read in 0..14 {
            assert_eq!(meter.judge(&shows(0), second(1 + read)), Verdict::Held);
        }
        assert_eq!(meter.judge(&shows(4_993), second(80)), Verdict::Held);
        assert!(matches!(meter.judge(&shows(5_000), second(81)), Verdict::Believed { .. }));
    }

    #[test]
    fn silence_is_no_evidence_of_an_exchange() {
        let mut meter = meter_at(5_000);
        for at in [1, 61, 62, 63, 64, 65] {
            assert_eq!(meter.judge(&shows(0), second(at)), Verdict::Held, "at {at} s");
        }
        assert_eq!(meter.judge(&shows(0), second(110)), Verdict::Held);
        assert_eq!(meter.judge(&shows(0), second(200)), Verdict::Held);
        assert_eq!(meter.judge(&shows(0), second(215)), Verdict::Replaced);
    }

    #[test]
    fn a_rise_that_persists_is_believed_after_all() {
        let mut meter = meter_at(5_000);
        for read in 0..4 {
            assert_eq!(
                meter.judge(&shows(9_000 + read), second(1 + 20 * read as u64)),
                Verdict::Held
            );
        }
        assert_eq!(meter.judge(&shows(9_010), second(81)), Verdict::BelievedLate);
        assert_eq!(meter.outstanding(), Some((5_000, 9_010)));
    }

    #[test]
    fn another_serial_number_is_an_exchange_and_not_a_jump() {
        let mut meter = meter_at(5_000);
        let with_serial = |serial: &str| Reading { serial: Some(serial.into()), ..shows(5_001) };
        assert!(matches!(meter.judge(&with_serial("A1"), second(1)), Verdict::Believed { .. }));
        assert_eq!(meter.judge(&with_serial("B2"), second(2)), Verdict::Held);
        for read in 0..4 {
            let _ = meter.judge(&shows(5_001), second(22 + 20 * read));
        }
        meter.replace(5_001, second(90));
        assert_eq!(meter.serial.as_deref(), Some("B2"));
    }

    #[test]
    fn another_serial_number_is_believed_under_more_load_than_configured() {
        let mut meter = meter_at(5_000);
        let shows = |serial: &str, wh| Reading { serial: Some(serial.into()), ..shows(wh) };
        assert!(matches!(meter.judge(&shows("A1", 5_001), second(1)), Verdict::Believed { .. }));
        for at in 2..62 {
            let fast = shows("B2", 20 * at as i64);
            assert_eq!(meter.judge(&fast, second(at)), Verdict::Held, "at {at} s");
        }
        assert_eq!(meter.judge(&shows("B2", 1_240), second(62)), Verdict::Replaced);
    }

    #[test]
    fn without_a_clock_the_upper_bound_is_not_applied() {
        let mut meter = meter_at(5_000);
        let rebooted = Stamp { boot: 2, uptime: Uptime(10), wall: Wall(0), synced: false };
        assert_eq!(meter.judge(&shows(90_000), rebooted), Verdict::Believed { gap: None });
    }
}
