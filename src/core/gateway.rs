//! The whole building: dispatches events to stations, keeps the timers, survives a full disk.

use std::time::Duration;

use crate::core::access::{Denial, Entry};
use crate::core::event::{Allowlist, Command, Event, Feedback, Step};
use crate::core::ids::{ReaderId, SessionId, StationId};
use crate::core::ledger::{Fact, OverrideAction, Record};
use crate::core::orders::Answer;
use crate::core::recovery::{Survivors, end_orphan};
use crate::core::site::{Site, SitePolicy};
use crate::core::station::{Station, Turn};
use crate::core::tap::Reader;
use crate::core::time::{Stamp, Uptime, Wall};

/// Decides everything; see the module documentation of [`crate::core`] for its contract.
#[derive(Clone, Debug)]
pub struct Gateway {
    pub(super) policy: SitePolicy,
    pub(super) readers: Vec<Reader>,
    pub(super) stations: Vec<Station>,
    pub(super) allowlist: Option<Allowlist>,
    pub(super) allowlist_arrived: Option<Stamp>,
    pub(super) clock_floor: Wall,
    /// Records that a failed commit left over, in order. While there are any, nothing starts.
    pub(super) unsaved: Vec<Record>,
    retry_unsaved_at: Option<Uptime>,
    /// After a power cut no switch closes before this: see [`RESUME_SPACING`].
    ///
    /// [`RESUME_SPACING`]: crate::core::recovery::RESUME_SPACING
    resume_after: Uptime,
}

/// What is known when the daemon starts, beside the site and what survived.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Version of the program.
    pub version: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Which allowlist decides.
    pub allowlist: Option<Allowlist>,
    /// When a valid head last arrived.
    pub allowlist_arrived: Option<Stamp>,
    /// The latest time that is known to have passed.
    pub clock_floor: Wall,
}

/// How long a failed commit waits for the next try.
const RETRY_UNSAVED: Duration = Duration::from_secs(5);
/// A disk that stays full for months: beyond this many records sessions are no longer broken down
/// into slots. Starts are refused meanwhile, so what can still come is one end per station.
const UNSAVED_MAX: usize = 4_096;

impl Gateway {
    /// Goes on from what survived. The step records the start and asks every device how it stands.
    pub fn recover(
        site: Site,
        survivors: &Survivors,
        startup: Startup,
        now: Stamp,
    ) -> (Gateway, Step) {
        let mut gateway = Gateway {
            policy: site.policy,
            readers: site.readers.into_iter().map(|plan| Reader::new(plan, now.uptime)).collect(),
            stations: site.stations.into_iter().map(Station::new).collect(),
            allowlist: startup.allowlist,
            allowlist_arrived: startup.allowlist_arrived,
            clock_floor: startup.clock_floor,
            unsaved: Vec::new(),
            retry_unsaved_at: None,
            resume_after: Uptime::default(),
        };
        let (version, boot_id) = (startup.version, startup.boot_id);
        let step = gateway.turn(now, |gateway, turn| {
            turn.record(Fact::GatewayStarted { version, boot_id });
            tell_of_clock(survivors.recorded, turn);
            gateway.take_over(survivors, turn);
            for station in &mut gateway.stations {
                let id = station.plan.id.clone();
                turn.command(Command::ReadSwitch(id.clone()));
                turn.command(Command::PaceMeter(id.clone(), station.pace()));
                if station.meter.is_some() {
                    turn.command(Command::ReadMeter(id));
                }
            }
        });
        (gateway, step)
    }

    /// Something happened.
    pub fn handle_event(&mut self, event: &Event, now: Stamp) -> Step {
        self.turn(now, |gateway, turn| gateway.dispatch(event, turn))
    }

    /// Time passed: everything that was due by `now` happens.
    pub fn handle_timeout(&mut self, now: Stamp) -> Step {
        self.turn(now, |gateway, turn| {
            if gateway.retry_unsaved_at.is_some_and(|at| at <= now.uptime) {
                gateway.retry_unsaved_at = None;
                turn.step.records.append(&mut gateway.unsaved);
            }
            for station in &mut gateway.stations {
                station.on_timeout(turn);
            }
            for reader in &mut gateway.readers {
                reader.on_timeout(turn);
            }
            gateway.note_missing_readers(turn);
        })
    }

    /// When time alone will do something next, and why.
    pub fn poll_timeout(&self) -> Option<(Uptime, &'static str)> {
        let stations = self.stations.iter().filter_map(Station::next_timeout);
        let windows = self.readers.iter().filter_map(Reader::next_timeout);
        let unsaved = self.retry_unsaved_at.map(|at| (at, "records to save again"));
        let lamps = self.stations.iter().filter_map(|station| station.lamp.next_timeout());
        stations.chain(windows).chain(unsaved).chain(lamps).min()
    }

    /// The step could not be committed: what it would have started is denied, what it ended stays
    /// ended, and its other records wait for the next try. A session that would have been handed
    /// over goes on as if nobody had tapped.
    pub fn handle_commit_failure(&mut self, failed: Step, now: Stamp) -> Step {
        let denied: Vec<(StationId, SessionId)> =
            failed.records.iter().filter_map(started_station).collect();
        let is_denied = |id: &StationId| denied.iter().any(|(station, _)| station == id);
        let displaced: Vec<SessionId> =
            self.stations.iter().filter_map(Station::displaced_session).collect();
        let undone = |record: &Record| match &record.fact {
            Fact::SessionEnded(end) => displaced.contains(&end.start.session),
            fact => matches!(fact, Fact::SessionStarted(_)),
        };
        self.unsaved.extend(failed.records.into_iter().filter(|record| !undone(record)));
        self.retry_unsaved_at = Some(now.uptime + RETRY_UNSAVED);
        let readers: Vec<ReaderId> = self
            .stations
            .iter()
            .filter(|station| is_denied(&station.plan.id))
            .map(|station| station.plan.reader.clone())
            .collect();
        let step = self.turn_of(now, false, |gateway, turn| {
            let stands = |command: &Command| !starts_one_of(&denied, &readers, command);
            turn.step.commands.extend(failed.commands.into_iter().filter(stands));
            for station in &mut gateway.stations {
                if is_denied(&station.plan.id) {
                    station.undo_start(turn);
                }
            }
        });
        self.unsaved.extend(step.records);
        Step { records: Vec::new(), commands: step.commands }
    }

    /// The badges of the open sessions, of starts that wait for their register and of selections
    /// that wait for a button, so that the shell can look them up in a new allowlist.
    pub fn running_badges(&self) -> Vec<(SessionId, crate::core::badge::Uid)> {
        let sessions = self.stations.iter().filter_map(|station| {
            let session = station.session.as_ref()?;
            Some((session.start.session, session.start.uid?))
        });
        let starts = self.stations.iter().filter_map(|station| {
            let pending = station.pending.as_ref()?;
            Some((pending.candidate, pending.uid?))
        });
        let selections = self.readers.iter().filter_map(Reader::chooser);
        sessions.chain(starts).chain(selections).collect()
    }

    fn turn(&mut self, now: Stamp, act: impl FnOnce(&mut Gateway, &mut Turn<'_>)) -> Step {
        for station in &mut self.stations {
            station.forget_displaced();
        }
        self.turn_of(now, true, act)
    }

    fn turn_of(
        &mut self,
        now: Stamp,
        saves: bool,
        act: impl FnOnce(&mut Gateway, &mut Turn<'_>),
    ) -> Step {
        let mut step = Step::default();
        let policy = SitePolicy { slots: self.wants_slots(), ..self.policy.clone() };
        let mut turn = Turn::new(&policy, now, self.resume_after, &mut step);
        act(self, &mut turn);
        // Each was refused by one more station than before: this ends.
        while let Some(alternatives) = turn.passed_on.pop() {
            self.choose_again(alternatives, &mut turn);
        }
        for station in &mut self.stations {
            if saves && turn.policy.slots && !turn.step.records.is_empty() {
                station.close_slot_that_is_over(&mut turn);
            }
            station.publish_change(&mut turn);
        }
        self.light_lamps(&mut turn);
        let (refused, resume_after) = turn.end();
        self.resume_after = resume_after;
        for reader in self.readers.iter_mut().filter(|r| refused.contains(&r.plan.id)) {
            reader.forget_action();
        }
        if saves && !step.records.is_empty() && !self.unsaved.is_empty() {
            let mut records = std::mem::take(&mut self.unsaved);
            records.append(&mut step.records);
            step.records = records;
        }
        step
    }

    fn wants_slots(&self) -> bool {
        self.policy.slots && self.unsaved.len() < UNSAVED_MAX
    }

    fn dispatch(&mut self, event: &Event, turn: &mut Turn<'_>) {
        match event {
            Event::BadgePresented(tap) => self.on_badge_presented(tap, turn),
            Event::BadgeUnreadable { reader, technology } => {
                self.on_badge_unreadable(reader, *technology, turn);
            }
            Event::BadgeRemoved { reader } => self.on_badge_removed(reader, turn),
            Event::ReaderFound { reader } => self.on_reader_found(reader),
            Event::ReaderLost { reader } => self.on_reader_lost(reader, turn),
            Event::ButtonPressed { station, candidate } => {
                self.on_button_pressed(station, *candidate, turn);
            }
            Event::StartOrdered(order) => self.on_start_ordered(order, turn),
            Event::StopOrdered(order) => self.on_stop_ordered(order, turn),
            Event::TakenOutOfService { station, note } => {
                self.on_taken_out_of_service(station, note);
            }
            Event::MeterExchanged { station, order } => {
                self.on_meter_exchanged(station, *order, turn);
            }
            Event::ReturnedToService { station } => self.on_returned_to_service(station),
            Event::TechnicianStarts { station, candidate } => {
                self.on_technician_starts(station, *candidate, turn);
            }
            Event::TechnicianEnds { station } => self.on_technician_ends(station, turn),
            Event::SwitchReported { station, report } => {
                if let Some(station) = self.station_mut(station) {
                    station.on_switch(report, turn);
                    station.resume_if_due(turn);
                }
            }
            Event::MeterRead { station, reading } => {
                if let Some(station) = self.station_mut(station) {
                    station.on_reading(reading, turn);
                    station.resume_if_due(turn);
                }
            }
            Event::MeterSilent { station } => {
                if let Some(station) = self.station_mut(station) {
                    station.on_silence(turn);
                    station.resume_if_due(turn);
                }
            }
            Event::AllowlistApplied { allowlist, running } => {
                self.on_allowlist_applied(allowlist, running, turn);
            }
            Event::BadgeOverridden { badge, action, by, running } => {
                let (badge, action, by) = (badge.clone(), *action, by.clone());
                if let (Some(badge), OverrideAction::Blocked) = (&badge, action) {
                    for reader in &mut self.readers {
                        reader.close_window_of(badge, turn);
                    }
                }
                turn.record(Fact::BadgeOverride { badge, action, by });
                for (session, entry) in running {
                    self.review(*session, entry.as_ref(), turn);
                }
            }
            Event::AllowlistConfirmed => self.allowlist_arrived = Some(turn.now),
            Event::TimePassed { floor } => self.clock_floor = self.clock_floor.max(*floor),
            Event::ClockSynchronised { before } => {
                turn.record(Fact::ClockSet { wall: turn.now.wall, before: *before });
                for station in &mut self.stations {
                    station.resume_if_due(turn);
                }
            }
        }
    }

    fn take_over(&mut self, survivors: &Survivors, turn: &mut Turn<'_>) {
        for (id, note) in &survivors.out_of_service {
            if let Some(station) = self.station_mut(id) {
                station.out_of_service = Some(note.clone());
            }
        }
        for account in &survivors.meters {
            // The account is the meter's, whichever station it measures now.
            for station in &mut self.stations {
                station.recover_meter(account, survivors.epoch_opened);
            }
        }
        if survivors.epoch_opened.is_some() {
            for station in &mut self.stations {
                station.epoch_opened = survivors.epoch_opened;
                station.switch.spare = Some(station.plan.rules.idle_proof());
            }
        }
        for open in &survivors.sessions {
            let meter_stays = |station: &&mut Station| station.plan.meter == open.start.meter;
            let commissioned =
                survivors.meters.iter().any(|a| Some(&a.meter) == open.start.meter.as_ref());
            let Some(station) = self.station_mut(&open.start.station).filter(meter_stays) else {
                end_orphan(open, commissioned, turn);
                if let Some(station) = self.station_mut(&open.start.station) {
                    station.switch.spare = Some(station.plan.rules.idle_proof());
                }
                continue;
            };
            station.recover_session(open, &survivors.memos, turn);
            station.plan_after_start = station.recovery_plan(survivors.newest, turn.now);
            station.register_before_outage =
                station.meter.as_ref().and_then(|meter| meter.register_wh());
        }
        for station in &mut self.stations {
            survivors.memos.iter().for_each(|memo| station.remember_stuck(memo, turn));
        }
    }

    fn on_allowlist_applied(
        &mut self,
        allowlist: &Allowlist,
        running: &[(SessionId, Option<Entry>)],
        turn: &mut Turn<'_>,
    ) {
        self.allowlist = Some(allowlist.clone());
        self.allowlist_arrived = Some(turn.now);
        turn.record(Fact::AllowlistApplied {
            list: allowlist.list.clone(),
            version: allowlist.version,
            digest: allowlist.digest.clone(),
            count: allowlist.count,
        });
        for reader in &mut self.readers {
            reader.review_window(running, turn);
        }
        for (session, entry) in running {
            self.review(*session, entry.as_ref(), turn);
        }
    }

    /// A new allowlist judges what runs, and what waits for its start register.
    fn review(&mut self, id: SessionId, entry: Option<&Entry>, turn: &mut Turn<'_>) {
        for station in &mut self.stations {
            let starts = station.pending.as_ref().is_some_and(|p| p.candidate == id);
            let denial = match entry {
                None => Denial::UnknownBadge,
                Some(entry) if entry.blocked => Denial::BadgeBlocked,
                Some(entry) if station.is_user_of(id, &entry.user) => continue,
                Some(_) => Denial::UnknownBadge,
            };
            if starts {
                station.refuse_pending(denial, turn);
            } else if station.session.as_ref().is_some_and(|s| s.start.session == id) {
                station.revoke(turn);
            }
        }
    }

    pub(super) fn station_mut(&mut self, id: &StationId) -> Option<&mut Station> {
        self.stations.iter_mut().find(|station| &station.plan.id == id)
    }

    pub(super) fn reader_mut(&mut self, id: &ReaderId) -> Option<&mut Reader> {
        self.readers.iter_mut().find(|reader| &reader.plan.id == id)
    }
}

/// The clock became right unrecorded, while no daemon ran or on a disk that took nothing: the
/// stamps before were of a wrong one.
fn tell_of_clock(recorded: Option<Stamp>, turn: &mut Turn<'_>) {
    let Some(recorded) = recorded.filter(|at| at.boot == turn.now.boot) else { return };
    if turn.now.synced && !recorded.synced {
        let before = recorded.wall + turn.uptime().since(recorded.uptime);
        turn.record(Fact::ClockSet { wall: turn.now.wall, before });
    }
}

fn started_station(record: &Record) -> Option<(StationId, SessionId)> {
    let Fact::SessionStarted(start) = &record.fact else { return None };
    Some((start.station.clone(), start.session))
}

/// Whether a command would do, or tell of, a start that is not on record.
fn starts_one_of(
    denied: &[(StationId, SessionId)],
    readers: &[ReaderId],
    command: &Command,
) -> bool {
    match command {
        Command::CloseSwitch(station)
        | Command::PaceMeter(station, _)
        | Command::SetLamp(station, _)
        | Command::PublishStation(station) => denied.iter().any(|(id, _)| id == station),
        Command::Answer(_, Answer::Starting(id)) => denied.iter().any(|(_, s)| s == id),
        Command::ShowFeedback(reader, feedback) => {
            *feedback == Feedback::Granted && readers.contains(reader)
        }
        Command::OpenSwitch(_)
        | Command::ReadSwitch(_)
        | Command::ReadMeter(_)
        | Command::ReadRegister(_)
        | Command::WatchButtons(..)
        | Command::Answer(..)
        | Command::Notify(_) => false,
    }
}
