//! What a tap means on a reader.

use std::time::Duration;

use crate::core::access::{Circumstances, Denial, Entry, decide};
use crate::core::badge::{Technology, Uid};
use crate::core::event::{Command, Feedback, Notice, Tap};
use crate::core::gateway::Gateway;
use crate::core::ids::{BadgeId, ReaderId, SessionId, StationId, UserId};
use crate::core::ledger::{Authority, EndReason};
use crate::core::metering::elapsed;
use crate::core::session::Phase;
use crate::core::site::{self, Selection};
use crate::core::station::{Alternatives, PendingStart, Station, Turn};
use crate::core::time::{Stamp, Uptime};

/// A reader and what lately happened on it.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) plan: site::Reader,
    present: Option<Uid>,
    /// Cards that left lately, newest last; at most [`REMOVED_MAX`].
    removed: Vec<(Uid, Uptime)>,
    acted: Option<(Uid, Uptime, Feedback)>,
    window: Option<Window>,
    /// Until then a reader that was not found yet is not missed.
    missed_at: Option<Uptime>,
}

/// A grant that waits for a button.
#[derive(Clone, Debug)]
struct Window {
    tap: Tap,
    until: Uptime,
    /// Whose buttons count.
    stations: Vec<StationId>,
}

/// What a tap means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Start(StationId),
    Stop(StationId),
    HandOver(StationId),
    YoursRunning,
    AwaitButton(Vec<StationId>),
    Deny(Option<StationId>, Denial),
}

/// The same badge within this time of its own tap changes nothing and repeats the feedback.
const REPEAT: Duration = Duration::from_secs(5);
/// How long after the start a reader may take to be found.
const READER_PATIENCE: Duration = Duration::from_secs(30);
/// So many cards can flap on a reader in turn, such as two in one wallet; the oldest is forgotten.
const REMOVED_MAX: usize = 4;

impl Reader {
    pub(super) fn new(plan: site::Reader, now: Uptime) -> Reader {
        let missed_at = Some(now + READER_PATIENCE);
        Reader { plan, present: None, removed: Vec::new(), acted: None, window: None, missed_at }
    }

    pub(super) fn next_timeout(&self) -> Option<(Uptime, &'static str)> {
        let window = self.window.as_ref().map(|window| (window.until, "selection window"));
        window.into_iter().chain(self.missed_at.map(|at| (at, "reader not found"))).min()
    }

    pub(super) fn on_timeout(&mut self, turn: &mut Turn<'_>) {
        if self.window.as_ref().is_some_and(|window| window.until <= turn.uptime()) {
            self.close_window(turn);
        }
    }

    pub(super) fn close_window(&mut self, turn: &mut Turn<'_>) {
        if self.window.take().is_some() {
            turn.command(Command::WatchButtons(self.plan.id.clone(), Vec::new()));
        }
    }

    /// The stations whose buttons count now.
    pub(super) fn choosable(&self) -> &[StationId] {
        self.window.as_ref().map_or(&[], |window| &window.stations)
    }

    /// Who chooses, under the id that the tap came with.
    pub(super) fn chooser(&self) -> Option<(SessionId, Uid)> {
        self.window.as_ref().map(|window| (window.tap.candidate, window.tap.uid))
    }

    /// The press is decided by what the new list says of the badge; nobody presses for one that it
    /// does not have.
    pub(super) fn review_window(
        &mut self,
        entries: &[(SessionId, Option<Entry>)],
        turn: &mut Turn<'_>,
    ) {
        let Some(window) = &mut self.window else { return };
        let tap = &mut window.tap;
        let found = entries.iter().find(|(id, _)| *id == tap.candidate);
        let user = tap.entry.as_ref().map(|entry| &entry.user);
        match found.and_then(|(_, entry)| entry.as_ref()) {
            Some(entry) if Some(&entry.user) == user => tap.entry = Some(entry.clone()),
            Some(_) | None => self.close_window(turn),
        }
    }

    /// Nobody presses on the account of a badge that was blocked meanwhile.
    pub(super) fn close_window_of(&mut self, badge: &BadgeId, turn: &mut Turn<'_>) {
        let entry = self.window.as_ref().and_then(|window| window.tap.entry.as_ref());
        if entry.is_some_and(|entry| &entry.badge == badge) {
            self.close_window(turn);
        }
    }

    pub(super) fn forget_action(&mut self) {
        self.acted = None;
    }

    /// Whether this arrival is a tap: the same card counts again only after it was away.
    fn is_tap(&mut self, uid: Uid, now: Uptime) -> bool {
        let lies_there = self.present.replace(uid) == Some(uid);
        let flapped = self
            .removed
            .iter()
            .any(|(removed, at)| *removed == uid && now.since(*at) < self.plan.debounce);
        !lies_there && !flapped
    }

    fn on_removal(&mut self, now: Uptime) {
        let Some(uid) = self.present.take() else { return };
        self.removed.retain(|(removed, _)| *removed != uid);
        if self.removed.len() == REMOVED_MAX {
            self.removed.remove(0);
        }
        self.removed.push((uid, now));
    }

    fn repeated(&self, uid: Uid, now: Uptime) -> Option<Feedback> {
        let (acted, at, feedback) = self.acted?;
        (acted == uid && now.since(at) < REPEAT).then_some(feedback)
    }
}

impl Gateway {
    pub(super) fn on_badge_presented(&mut self, tap: &Tap, turn: &mut Turn<'_>) {
        let now = turn.uptime();
        let Some(reader) = self.reader_mut(&tap.reader) else { return };
        if !reader.is_tap(tap.uid, now) {
            return;
        }
        if let Some(feedback) = reader.repeated(tap.uid, now) {
            return turn.command(Command::ShowFeedback(tap.reader.clone(), feedback));
        }
        if let Some(denial) = no_badge(tap.uid) {
            return deny_card(&tap.reader, tap.technology, denial, turn);
        }
        if self.selection_is_open(tap, turn) {
            return;
        }
        let decision = self.meaning_of(tap, turn.now);
        self.act_on(decision, tap, turn);
    }

    pub(super) fn on_badge_unreadable(
        &mut self,
        reader: &ReaderId,
        technology: Technology,
        turn: &mut Turn<'_>,
    ) {
        if self.reader_mut(reader).is_some() {
            deny_card(reader, technology, Denial::Unreadable, turn);
        }
    }

    pub(super) fn on_badge_removed(&mut self, reader: &ReaderId, turn: &mut Turn<'_>) {
        if let Some(reader) = self.reader_mut(reader) {
            reader.on_removal(turn.uptime());
        }
    }

    pub(super) fn on_reader_found(&mut self, id: &ReaderId) {
        if let Some(reader) = self.reader_mut(id) {
            reader.missed_at = None;
        }
        self.mark_reader(id, false);
    }

    /// What runs there goes on: only taps are prevented.
    pub(super) fn on_reader_lost(&mut self, id: &ReaderId, turn: &mut Turn<'_>) {
        if let Some(reader) = self.reader_mut(id) {
            reader.missed_at = None;
            reader.close_window(turn);
        }
        self.mark_reader(id, true);
    }

    pub(super) fn note_missing_readers(&mut self, turn: &mut Turn<'_>) {
        let missed = |reader: &&Reader| reader.missed_at.is_some_and(|at| at <= turn.uptime());
        let missed: Vec<ReaderId> =
            self.readers.iter().filter(missed).map(|reader| reader.plan.id.clone()).collect();
        for reader in missed {
            self.on_reader_lost(&reader, turn);
        }
    }

    fn mark_reader(&mut self, id: &ReaderId, lost: bool) {
        for station in self.stations.iter_mut().filter(|station| &station.plan.reader == id) {
            station.reader_lost = lost;
        }
    }

    pub(super) fn on_button_pressed(
        &mut self,
        id: &StationId,
        candidate: SessionId,
        turn: &mut Turn<'_>,
    ) {
        let on_reader = |reader: &&mut Reader| reader.plan.stations.contains(id);
        let Some(reader) = self.readers.iter_mut().find(on_reader) else { return };
        let Some(window) = reader.window.take() else { return };
        turn.command(Command::WatchButtons(reader.plan.id.clone(), Vec::new()));
        if window.until <= turn.uptime() {
            return;
        }
        let tap = Tap { candidate, ..window.tap };
        let decision = match self.stations.iter().find(|station| &station.plan.id == id) {
            Some(station) => self.meaning_at(station, &tap, turn.now),
            None => return,
        };
        self.act_on(decision, &tap, turn);
    }

    /// While a selection waits for a button nobody else taps into it; the same user closes it.
    fn selection_is_open(&mut self, tap: &Tap, turn: &mut Turn<'_>) -> bool {
        let user = tap.entry.as_ref().map(|entry| &entry.user);
        let Some(reader) = self.reader_mut(&tap.reader) else { return false };
        let Some(window) = &reader.window else { return false };
        let owner = window.tap.entry.as_ref().map(|entry| &entry.user);
        if window.tap.uid == tap.uid || (owner.is_some() && owner == user) {
            reader.close_window(turn);
        } else {
            refuse(tap, None, Denial::SelectionOpen, turn);
        }
        true
    }

    fn meaning_of(&self, tap: &Tap, now: Stamp) -> Decision {
        let Some(reader) = self.readers.iter().find(|reader| reader.plan.id == tap.reader) else {
            return Decision::Deny(None, Denial::NotGranted);
        };
        let meanings = self.meanings_of(tap, now).into_iter().map(|(_, meaning)| meaning).collect();
        match reader.plan.selection {
            Selection::Single | Selection::FirstFree => first_of(meanings),
            Selection::Button => selectable(meanings),
        }
    }

    /// What the tap means at each of the reader's stations, in config order.
    fn meanings_of(&self, tap: &Tap, now: Stamp) -> Vec<(StationId, Decision)> {
        let reader = self.readers.iter().find(|reader| reader.plan.id == tap.reader);
        let ids = reader.map_or(&[][..], |reader| &reader.plan.stations);
        let here = self.stations.iter().filter(|station| ids.contains(&station.plan.id));
        here.map(|station| (station.plan.id.clone(), self.meaning_at(station, tap, now))).collect()
    }

    /// What the tap means at one station. Ownership comes first.
    pub(super) fn meaning_at(&self, station: &Station, tap: &Tap, now: Stamp) -> Decision {
        let id = station.plan.id.clone();
        let user = tap.entry.as_ref().map(|entry| &entry.user);
        if station.is_owned_by(tap.uid, user) {
            let ending = |phase| matches!(phase, Phase::Ending { .. });
            let theirs = station.session.as_ref().filter(|s| s.is_owned_by(tap.uid, user));
            let stoppable =
                station.plan.rules.tap_to_stop && theirs.is_some_and(|s| !ending(s.phase));
            return if stoppable { Decision::Stop(id) } else { Decision::YoursRunning };
        }
        let occupied = station.session.is_some() || station.pending.is_some();
        let handover = station.pending.is_none()
            && station
                .session
                .as_ref()
                .is_some_and(|session| session.is_handover_due(&station.plan, now.uptime));
        let circumstances = Circumstances {
            occupied: occupied && !handover,
            sessions_of_user: user.map_or(0, |user| self.sessions_of_user(user, &station.plan)),
            ..self.circumstances(station, now)
        };
        let entry = tap.entry.as_ref();
        match decide(&self.policy, &station.plan, entry, tap.technology, &circumstances) {
            Ok(()) if handover => Decision::HandOver(id),
            Ok(()) => Decision::Start(id),
            Err(denial) => Decision::Deny(Some(id), denial),
        }
    }

    /// What holds for everybody who would start a session there now.
    pub(super) fn circumstances(&self, station: &Station, now: Stamp) -> Circumstances {
        Circumstances {
            now,
            clock_floor: self.clock_floor,
            allowlist_age: self.allowlist_arrived.map(|at| age(at, now)),
            out_of_service: station.is_unusable(),
            occupied: station.session.is_some() || station.pending.is_some(),
            sessions_of_user: 0,
            storage_failed: !self.unsaved.is_empty(),
        }
    }

    /// This user's sessions on stations of the same kind.
    pub(super) fn sessions_of_user(&self, user: &UserId, plan: &site::Station) -> u32 {
        let of_kind = self.stations.iter().filter(|station| station.plan.kind == plan.kind);
        of_kind.map(|station| station.sessions_of(user)).sum()
    }

    fn act_on(&mut self, decision: Decision, tap: &Tap, turn: &mut Turn<'_>) {
        match decision {
            Decision::Start(id) | Decision::HandOver(id) => {
                self.note_action(tap, Feedback::Granted, turn);
                self.start_at(&id, tap, Vec::new(), turn);
            }
            Decision::Stop(id) => {
                self.note_action(tap, Feedback::Stopped, turn);
                turn.command(Command::ShowFeedback(tap.reader.clone(), Feedback::Stopped));
                if let Some(station) = self.station_mut(&id) {
                    station.begin_end(EndReason::Tapped, turn);
                }
            }
            Decision::YoursRunning => {
                turn.command(Command::ShowFeedback(tap.reader.clone(), Feedback::YoursRunning));
            }
            Decision::AwaitButton(stations) => {
                let Some(reader) = self.reader_mut(&tap.reader) else { return };
                let until = turn.uptime() + reader.plan.selection_timeout;
                let choice = stations.clone();
                reader.window = Some(Window { tap: tap.clone(), until, stations: choice });
                turn.command(Command::WatchButtons(tap.reader.clone(), stations));
                turn.command(Command::ShowFeedback(tap.reader.clone(), Feedback::SelectStation));
            }
            Decision::Deny(station, denial) => refuse(tap, station, denial, turn),
        }
    }

    fn note_action(&mut self, tap: &Tap, feedback: Feedback, turn: &Turn<'_>) {
        if let Some(reader) = self.reader_mut(&tap.reader) {
            reader.acted = Some((tap.uid, turn.uptime(), feedback));
        }
    }

    /// Starts there; `refused` could not.
    fn start_at(
        &mut self,
        id: &StationId,
        tap: &Tap,
        refused: Vec<(StationId, Denial)>,
        turn: &mut Turn<'_>,
    ) {
        let entry = tap.entry.as_ref();
        let reader = self.readers.iter().find(|reader| reader.plan.id == tap.reader);
        let first_free = reader.is_some_and(|r| r.plan.selection == Selection::FirstFree);
        let alternatives = first_free.then(|| Alternatives { tap: tap.clone(), refused });
        let pending = PendingStart {
            candidate: tap.candidate,
            user: entry.map(|entry| entry.user.clone()),
            badge: entry.map(|entry| entry.badge.clone()),
            uid: Some(tap.uid),
            technology: Some(tap.technology),
            authorised_by: Authority::Allowlist,
            allowlist_version: self.allowlist.as_ref().map(|allowlist| allowlist.version),
            reader: Some(tap.reader.clone()),
            order: None,
            deadline: turn.uptime() + turn.policy.start_read_timeout,
            retry_at: None,
            alternatives,
        };
        if let Some(station) = self.station_mut(id) {
            station.begin_start(pending, turn);
        }
    }

    /// The station that was meant cannot start after all, its meter is silent for example: the
    /// next one in config order that can, else the best refusal of all.
    pub(super) fn choose_again(&mut self, rest: Alternatives, turn: &mut Turn<'_>) {
        let Alternatives { tap, refused } = rest;
        let tried = |id: &StationId| refused.iter().any(|(tried, _)| tried == id);
        let meanings = self.meanings_of(&tap, turn.now).into_iter().filter(|(id, _)| !tried(id));
        let refusals = refused.iter().map(|(id, denial)| Decision::Deny(Some(id.clone()), *denial));
        match first_of(refusals.chain(meanings.map(|(_, meaning)| meaning)).collect()) {
            Decision::Start(id) | Decision::HandOver(id) => self.start_at(&id, &tap, refused, turn),
            Decision::Deny(station, denial) => {
                turn.take_back_grant(&tap.reader, denial);
                turn.command(denied(&tap, station, denial));
            }
            // Started meanwhile, by an operator: a tap that was to start something stops nothing.
            Decision::Stop(_) | Decision::YoursRunning | Decision::AwaitButton(_) => {
                self.act_on(Decision::YoursRunning, &tap, turn);
            }
        }
    }
}

/// Why a card with this number is no badge, if it is none: row 1 of the contract's table.
pub fn no_badge(uid: Uid) -> Option<Denial> {
    match (uid.is_random(), uid.is_truncated()) {
        (true, _) => Some(Denial::RandomUid),
        (false, true) => Some(Denial::Unreadable),
        (false, false) => None,
    }
}

/// How old the list is; where it arrived at a time that nobody knows, in an earlier boot, at least
/// as old as this one.
fn age(arrived: Stamp, now: Stamp) -> Duration {
    elapsed(arrived, now).unwrap_or(now.uptime.since(Uptime(0)))
}

/// Stop what is one's own, else the first grant, else a hand-over, else the best refusal.
fn first_of(meanings: Vec<Decision>) -> Decision {
    let rank = |meaning: &Decision| match meaning {
        Decision::Stop(_) => 0,
        Decision::Start(_) => 1,
        Decision::HandOver(_) => 2,
        Decision::YoursRunning => 3,
        Decision::AwaitButton(_) => 4,
        Decision::Deny(..) => 5,
    };
    let best = meanings.iter().min_by_key(|meaning| rank(meaning)).cloned();
    match best {
        Some(Decision::Deny(..)) => furthest_refusal(meanings),
        Some(meaning) => meaning,
        None => Decision::Deny(None, Denial::NotGranted),
    }
}

/// With buttons, every station that would start or stop may be chosen.
fn selectable(meanings: Vec<Decision>) -> Decision {
    let chosen: Vec<StationId> = meanings
        .iter()
        .filter_map(|meaning| match meaning {
            Decision::Start(id) | Decision::Stop(id) | Decision::HandOver(id) => Some(id.clone()),
            Decision::YoursRunning | Decision::AwaitButton(_) | Decision::Deny(..) => None,
        })
        .collect();
    if !chosen.is_empty() {
        return Decision::AwaitButton(chosen);
    }
    if meanings.contains(&Decision::YoursRunning) {
        return Decision::YoursRunning;
    }
    furthest_refusal(meanings)
}

/// The refusal of the station that came closest to a grant.
fn furthest_refusal(meanings: Vec<Decision>) -> Decision {
    let refusals = meanings.into_iter().filter_map(|meaning| match meaning {
        Decision::Deny(id, denial) => Some((id, denial)),
        Decision::Start(_)
        | Decision::Stop(_)
        | Decision::HandOver(_)
        | Decision::YoursRunning
        | Decision::AwaitButton(_) => None,
    });
    match refusals.reduce(|best, next| if next.1 > best.1 { next } else { best }) {
        Some((id, denial)) => Decision::Deny(id, denial),
        None => Decision::Deny(None, Denial::NotGranted),
    }
}

fn refuse(tap: &Tap, station: Option<StationId>, reason: Denial, turn: &mut Turn<'_>) {
    turn.command(Command::ShowFeedback(tap.reader.clone(), Feedback::Denied(reason)));
    turn.command(denied(tap, station, reason));
}

fn denied(tap: &Tap, station: Option<StationId>, reason: Denial) -> Command {
    let badge: Option<BadgeId> = tap.entry.as_ref().map(|entry| entry.badge.clone());
    let uid = badge.is_none().then_some(tap.uid);
    let (reader, technology) = (tap.reader.clone(), Some(tap.technology));
    Command::Notify(Notice::Denied { reader, station, reason, technology, badge, uid })
}

/// A card that is no badge: random, truncated or unreadable. Its number is nobody's and stays here.
fn deny_card(reader: &ReaderId, technology: Technology, reason: Denial, turn: &mut Turn<'_>) {
    turn.command(Command::ShowFeedback(reader.clone(), Feedback::Denied(reason)));
    turn.command(Command::Notify(Notice::Denied {
        reader: reader.clone(),
        station: None,
        reason,
        technology: Some(technology),
        badge: None,
        uid: None,
    }));
}
