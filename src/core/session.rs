//! One use of one station by one resident: what has been seen of its load, and what follows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::badge::Technology;
use crate::core::badge::Uid;
use crate::core::event::Vehicle;
use crate::core::ids::UserId;
use crate::core::ledger::{Authority, EndReason, SessionStart};
use crate::core::metering::elapsed;
use crate::core::orders::OrderId;
use crate::core::site::{Station, StationKind};
use crate::core::time::{Stamp, Uptime, Wall};

/// A session on record.
#[derive(Clone, Debug)]
pub struct Session {
    /// As recorded.
    pub start: SessionStart,
    /// When it was recorded.
    pub started: Stamp,
    /// How old it was at `watched_since`: earlier boots count too.
    age_before: Duration,
    /// Since when this run of the daemon knows it.
    pub watched_since: Uptime,
    /// Where it stands.
    pub phase: Phase,
    /// Posted to it in the ledger so far.
    pub posted_wh: i64,
    /// Part of its energy is not known to have flowed exactly in it.
    pub estimated: bool,
    /// The 15-minute slot that is being filled.
    pub slot: Wall,
    load: Load,
    /// Times that a switch was found open and closed again.
    pub reclosed: u32,
    /// Its switch was seen closed: from then on a switch that fails does not end it.
    pub confirmed: bool,
    /// Of the card that started it, as long as the daemon runs.
    pub technology: Option<Technology>,
    /// Somebody stands at the reader and waits for it to start.
    pub at_reader: bool,
    /// Who ordered it wants to know whether its switch closes.
    pub order: Option<OrderId>,
    /// A limit, a revocation or an order waits for the next idle moment.
    pub end_when_idle: Option<EndReason>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// After a start of the daemon: waiting to see how the switch stands.
    Recovering,
    /// The switch is being closed.
    Closing {
        /// How often it was tried.
        attempts: u32,
        /// When it is tried again, or given up.
        retry_at: Uptime,
    },
    /// Power is on.
    Running,
    /// The intention to end is on record; power is being taken away.
    Ending {
        /// Why.
        reason: EndReason,
        /// Since when.
        since: Uptime,
        /// Whether the switch has been reported open.
        opened: bool,
    },
}

/// What has been seen of the load.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Power at or above `idle_power` was seen.
    seen: bool,
    /// Last time that there was any draw worth the name, for `start_timeout`.
    quiet_since: Uptime,
    /// Idle without a break since.
    idle: Option<Lull>,
    /// Below the tired-electronics threshold since, for limits that wait.
    nearly_idle: Option<Lull>,
    /// A burst runs since.
    burst_since: Option<Uptime>,
    /// Last reading of power.
    last: Option<Uptime>,
    /// A car was there.
    car_seen: bool,
    /// The car is there no more.
    car_left: bool,
    /// The charger has said that there is no car, for the first and for the last time in a row.
    no_car: Option<(Uptime, Uptime)>,
}

/// A time of little power, and the register when it began: what it counts must bear it out.
#[derive(Clone, Copy, Debug)]
struct Lull {
    since: Uptime,
    from_wh: Option<i64>,
}

/// One look at the meter: its power, and its register where that is known.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Active power in milliwatts.
    pub power_mw: i64,
    /// The believed register.
    pub register_wh: Option<i64>,
}

/// What has been seen of the load so far, as far as it bears on when the session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idleness {
    seen: bool,
    quiet_since: Uptime,
    idle_since: Option<Uptime>,
    nearly_idle_since: Option<Uptime>,
}

/// Readings further apart than this break an idle time: what happened between is not known. A meter
/// that loses one answer beside a dead one is asked again within it.
const IDLE_BREAK: Duration = Duration::from_secs(12);
/// Power is taken away on a reading no older than this: two turns of the bus.
const FRESH: Duration = Duration::from_secs(2);
/// Below this a machine draws nothing; a delayed start draws 2 to 20 W.
const NO_LOAD_MW: i64 = 1_000;
/// A machine that used this much has been seen running, unless it took very long.
const LOAD_SEEN_WH: i64 = 5;
/// Once a limit waits, a steady draw below this counts as idle: electronics of 15 to 25 W exist.
const TIRED_ELECTRONICS_MW: i64 = 50_000;

impl Session {
    /// A session whose start is about to be recorded.
    pub fn new(start: SessionStart, now: Stamp, phase: Phase) -> Session {
        Session {
            start,
            started: now,
            age_before: Duration::ZERO,
            watched_since: now.uptime,
            phase,
            posted_wh: 0,
            estimated: false,
            slot: now.wall.slot_start(SLOT),
            load: Load {
                seen: false,
                quiet_since: now.uptime,
                idle: None,
                nearly_idle: None,
                burst_since: None,
                last: None,
                car_seen: false,
                car_left: false,
                no_car: None,
            },
            reclosed: 0,
            confirmed: false,
            technology: None,
            at_reader: false,
            order: None,
            end_when_idle: None,
        }
    }

    /// A session that the store knows, as old as the clocks can tell.
    pub fn recovered(start: SessionStart, started: Stamp, posted_wh: i64, now: Stamp) -> Session {
        let age_before = elapsed(started, now).unwrap_or_default();
        let fresh = Session::new(start, now, Phase::Recovering);
        Session { started, age_before, posted_wh, ..fresh }
    }

    /// Time since its start.
    pub fn age(&self, now: Uptime) -> Duration {
        self.age_before + now.since(self.watched_since)
    }

    /// Whether the tapping badge or user owns it.
    pub fn is_owned_by(&self, uid: Uid, user: Option<&UserId>) -> bool {
        self.start.uid == Some(uid) || (user.is_some() && self.start.user.as_ref() == user)
    }

    /// Maintenance: it ends when the technician, a limit or an operator ends it, not by itself.
    fn is_technicians(&self) -> bool {
        self.start.authorised_by == Authority::Technician
    }

    /// The state that a portal shows while this session is open.
    pub fn is_idle(&self) -> bool {
        self.load.seen && self.load.idle.is_some()
    }

    /// Whether load was seen.
    pub fn has_drawn(&self) -> bool {
        self.load.seen
    }

    /// While nobody looked the register rose by this much: enough for a load, or only a standby.
    pub fn on_unseen_energy(&mut self, step_wh: i64, span: Option<Duration>, station: &Station) {
        const MS_PER_HOUR: i128 = 3_600_000;
        let span_ms = span.and_then(|span| i128::try_from(span.as_millis()).ok()).unwrap_or(0);
        let idle_energy = i128::from(station.rules.idle_power_w) * span_ms;
        if step_wh >= LOAD_SEEN_WH && i128::from(step_wh) * MS_PER_HOUR >= idle_energy {
            self.load.seen = true;
        }
        self.presume_car(station);
    }

    /// A car is plugged in.
    pub fn has_car(&self) -> bool {
        self.load.car_seen && !self.load.car_left
    }

    /// The car was unplugged.
    pub fn car_left(&self) -> bool {
        self.load.car_left
    }

    pub(super) fn idleness(&self) -> Idleness {
        let Load { seen, quiet_since, idle, nearly_idle, .. } = self.load;
        let (idle_since, nearly_idle_since) =
            (idle.map(|lull| lull.since), nearly_idle.map(|lull| lull.since));
        Idleness { seen, quiet_since, idle_since, nearly_idle_since }
    }

    /// Goes on watching from how the load stood a moment ago.
    pub(super) fn take_up(&mut self, idleness: Idleness, now: Uptime) {
        let Idleness { seen, quiet_since, idle_since, nearly_idle_since } = idleness;
        let lull = |since: Option<Uptime>| since.map(|since| Lull { since, from_wh: None });
        let (idle, nearly_idle, last) = (lull(idle_since), lull(nearly_idle_since), Some(now));
        let watched = Load { quiet_since, idle, nearly_idle, last, ..self.load };
        self.load = Load { seen: seen || self.load.seen, ..watched };
    }

    /// A charger that has charged had a car, even if nobody looked when that left.
    pub(super) fn presume_car(&mut self, station: &Station) {
        if station.has_vehicle_state && self.load.seen {
            self.load.car_seen = true;
            self.load.car_left |= self.load.no_car.is_some();
        }
    }

    /// Takes a power reading in.
    pub fn on_power(&mut self, look: Look, station: &Station, now: Uptime) {
        let Look { power_mw, register_wh } = look;
        self.on_silence(now);
        let load = &mut self.load;
        load.last = Some(now);
        let idle_mw = i64::from(station.rules.idle_power_w) * 1_000;
        let tired_mw = TIRED_ELECTRONICS_MW.max(idle_mw);
        let draws = if station.kind == StationKind::Charger { idle_mw } else { NO_LOAD_MW };
        if power_mw >= draws.min(idle_mw) {
            load.quiet_since = now;
        }
        let lull = Lull { since: now, from_wh: register_wh };
        if power_mw < tired_mw {
            load.nearly_idle.get_or_insert(lull);
        } else {
            load.nearly_idle = None;
        }
        if power_mw < idle_mw {
            load.burst_since = None;
            load.idle.get_or_insert(lull);
        } else if !load.is_burst(power_mw, station, now) {
            load.note_load();
        }
        load.check_by_register(register_wh, tired_mw, station, now);
    }

    /// Takes in that the average power ever since has been at most this: the meter tells no more.
    pub fn on_power_bound(&mut self, most_mw: i64, since: Uptime, station: &Station, now: Uptime) {
        let load = &mut self.load;
        load.last = Some(now);
        load.burst_since = None;
        let idle_mw = i64::from(station.rules.idle_power_w) * 1_000;
        let since = since.max(self.watched_since);
        if most_mw >= NO_LOAD_MW.min(idle_mw) {
            load.quiet_since = now;
        }
        let idle_below = |threshold_mw: i64, known: Option<Lull>| {
            let lull = known.unwrap_or(Lull { since, from_wh: None });
            (most_mw < threshold_mw).then_some(lull)
        };
        load.idle = idle_below(idle_mw, load.idle);
        load.nearly_idle = idle_below(TIRED_ELECTRONICS_MW.max(idle_mw), load.nearly_idle);
    }

    /// The meter is silent: what happens now is not known, and soon not what happened meanwhile.
    pub fn on_silence(&mut self, now: Uptime) {
        let load = &mut self.load;
        if load.last.is_some_and(|last| now.since(last) > IDLE_BREAK) {
            load.idle = None;
            load.nearly_idle = None;
            load.burst_since = None;
        }
    }

    /// Takes the charger's word on the car in.
    pub fn on_vehicle(&mut self, vehicle: Vehicle, now: Uptime) {
        let load = &mut self.load;
        match vehicle {
            Vehicle::Connected | Vehicle::Charging => {
                load.car_seen = true;
                load.car_left = false;
                load.no_car = None;
            }
            Vehicle::Absent => {
                load.car_left = load.car_seen;
                load.no_car = Some((load.no_car.map_or(now, |(since, _)| since), now));
            }
            Vehicle::Fault => load.no_car = None,
        }
    }

    /// Whether the station is idle, not even in a burst, by a reading no older than `within`.
    fn is_still(&self, now: Uptime, within: Duration) -> bool {
        let looked = self.load.last.is_some_and(|last| now.since(last) <= within);
        looked && self.load.idle.is_some() && self.load.burst_since.is_none()
    }

    /// Idle without a break for `span` up to the last reading, and that not long ago.
    pub fn idle_for(&self, span: Duration, now: Uptime) -> bool {
        let lasted = self.load.lasted(self.load.idle).is_some_and(|lasted| lasted >= span);
        self.is_still(now, IDLE_BREAK) && lasted
    }

    /// The charger has said for `span` that no car is there, and just said so again.
    fn without_car_for(&self, span: Duration, now: Uptime) -> bool {
        self.load.no_car.is_some_and(|(since, last)| {
            last.since(since) >= span && now.since(last) <= FRESH && !self.load.car_seen
        })
    }

    /// Whether another permitted user may take over now.
    pub fn is_handover_due(&self, station: &Station, now: Uptime) -> bool {
        if self.phase != Phase::Running || self.is_technicians() {
            return false;
        }
        if station.kind == StationKind::Charger && station.has_vehicle_state && self.load.car_left {
            return true;
        }
        let rules = &station.rules;
        let long_enough = self.age(now) >= rules.min_duration;
        let after = rules.handover_after;
        self.load.seen && long_enough && after.is_some_and(|after| self.idle_for(after, now))
    }

    /// Why the session should end now, if it should.
    pub fn end_due(&self, station: &Station, energy_wh: i64, now: Uptime) -> Option<EndReason> {
        let rules = &station.rules;
        let age = self.age(now);
        if station.has_vehicle_state && self.load.car_left {
            return Some(EndReason::Unplugged);
        }
        if let Some(reason) = self.waiting_end(station, energy_wh, now) {
            return Some(reason);
        }
        if self.is_technicians() {
            return None;
        }
        let still = self.is_still(now, FRESH);
        let finished = rules.idle_after.is_some_and(|after| self.idle_for(after, now));
        if self.load.seen && still && finished && age >= rules.min_duration {
            return Some(EndReason::Finished);
        }
        let unused_for = |span| {
            let quiet = still && now.since(self.load.quiet_since) >= span;
            (quiet && !self.load.car_seen) || self.without_car_for(span, now)
        };
        let unused = !self.load.seen && rules.start_timeout.is_some_and(unused_for);
        unused.then_some(EndReason::NotUsed)
    }

    /// Limits and revocations: at once on chargers, a limit also where nobody can know the load,
    /// else at the next idle moment.
    fn waiting_end(&self, station: &Station, energy_wh: i64, now: Uptime) -> Option<EndReason> {
        let rules = &station.rules;
        let age = self.age(now);
        let too_long = rules.max_duration.is_some_and(|most| age >= most);
        let too_much = rules.max_energy_wh.is_some_and(|most| energy_wh >= most);
        let limit = (too_long || too_much).then_some(EndReason::Limit);
        let reason = self.end_when_idle.or(limit)?;
        let blind = station.meter.is_none() && limit.is_some();
        let at_once = station.kind == StationKind::Charger || blind;
        let fresh = self.load.last.is_some_and(|last| now.since(last) <= FRESH);
        let nearly = self.load.lasted(self.load.nearly_idle);
        let proved = fresh && nearly.is_some_and(|lasted| lasted >= rules.idle_proof());
        let untouched = !self.load.seen && self.is_still(now, FRESH);
        (at_once || proved || untouched).then_some(reason)
    }

    /// The next moment at which time alone may end the session.
    pub fn limit_at(&self, station: &Station) -> Option<Uptime> {
        let most = station.rules.max_duration?;
        (station.kind == StationKind::Charger || station.meter.is_none())
            .then(|| self.watched_since + most.saturating_sub(self.age_before))
    }
}

impl Load {
    /// Anti-crease bursts: up to this power for up to this long they do not break the idle time.
    fn is_burst(&mut self, power_mw: i64, station: &Station, now: Uptime) -> bool {
        let Some(burst) = station.rules.idle_burst else { return false };
        if self.idle.is_none() || power_mw > i64::from(burst.power_w) * 1_000 {
            return false;
        }
        let since = *self.burst_since.get_or_insert(now);
        now.since(since) <= burst.duration
    }

    /// How long a lull had lasted at the last reading.
    fn lasted(&self, lull: Option<Lull>) -> Option<Duration> {
        Some(self.last?.since(lull?.since))
    }

    fn note_load(&mut self) {
        self.seen = true;
        self.idle = None;
        self.burst_since = None;
    }

    /// A register that counts more than the power can have been: the power hangs, the machine runs.
    fn check_by_register(
        &mut self,
        register_wh: Option<i64>,
        tired_mw: i64,
        station: &Station,
        now: Uptime,
    ) {
        let idle_w = station.rules.idle_power_w;
        let most_w = station.rules.idle_burst.map_or(idle_w, |burst| burst.power_w.max(idle_w));
        let refutes = |lull: &mut Option<Lull>, most_mw: i64| {
            let (Some(lull), Some(register)) = (lull, register_wh) else { return false };
            let from = *lull.from_wh.get_or_insert(register);
            let lasted_ms = i128::try_from(now.since(lull.since).as_millis()).unwrap_or(i128::MAX);
            let most = i128::from(most_mw) * lasted_ms / MW_MS_PER_WH;
            i128::from(register - from) > most + i128::from(station.meter_resolution_wh)
        };
        if refutes(&mut self.nearly_idle, tired_mw) {
            self.nearly_idle = None;
        }
        if refutes(&mut self.idle, i64::from(most_w) * 1_000) {
            self.note_load();
            self.quiet_since = now;
        }
    }
}

/// Milliwatts times milliseconds that make a watt-hour.
const MW_MS_PER_WH: i128 = 1_000 * 3_600_000;

/// The length of a billing slot.
pub const SLOT: Duration = Duration::from_secs(15 * 60);
