//! What who watches at the console is told, and the last taps.
//!
//! Nothing here waits: the feed drops what a slow terminal does not take.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::core::access::{Denial, Entry};
use crate::core::event::{Command, Feedback, Notice, Step, SwitchReport};
use crate::core::ids::{BadgeId, ReaderId, StationId, UserId};
use crate::core::ledger::{Fact, Record};
use crate::daemon::event_loop::Daemon;
use crate::io::feed::Feed;
use crate::io::modbus::FieldEvent;
use crate::io::mqtt::CloudEvent;
use crate::io::pcsc::ReaderEvent;
use crate::protocol::cloud::{EventKind, Refusal};
use crate::protocol::watch::{Happening, Here, TapDecision, TapStatus};

/// Taps that `tapgate status` and `top` show: a screen of them, some 5 KiB.
const TAPS: usize = 24;

/// What was told last, so that only changes are told.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) feed: Feed,
    /// The newest first.
    taps: VecDeque<TapStatus>,
    /// Who tapped last at each reader, where the allowlist knows.
    holders: BTreeMap<ReaderId, Option<Holder>>,
    switches: BTreeMap<StationId, SwitchReport>,
    silent: BTreeSet<StationId>,
}

/// What a step showed at a reader, and what it was about.
pub(super) struct Answered {
    reader: ReaderId,
    feedback: Feedback,
    station: Option<StationId>,
    /// Whose session that is; who tapped last may be somebody else by now.
    owner: Option<Holder>,
}

/// A user, and the badge that was held to the reader.
type Holder = (UserId, BadgeId);

impl Watched {
    pub(super) fn taps(&self) -> Vec<TapStatus> {
        self.taps.iter().cloned().collect()
    }

    /// A badge is being decided upon.
    pub(super) fn note_holder(&mut self, reader: &ReaderId, entry: Option<&Entry>) {
        let holder = entry.map(|entry| (entry.user.clone(), entry.badge.clone()));
        self.holders.insert(reader.clone(), holder);
    }

    /// What of a bus's reports is news.
    fn news(&mut self, event: &FieldEvent) -> Option<Here> {
        match event {
            FieldEvent::Switch { station, report } => {
                let known = self.switches.insert(station.clone(), report.clone());
                let station = station.clone();
                (known.as_ref() != Some(report)).then(|| position(station, report))
            }
            FieldEvent::Meter { station, .. } => {
                let back = self.silent.remove(station);
                back.then(|| Here::MeterBack { station: station.clone() })
            }
            FieldEvent::MeterSilent { station } => {
                let new = self.silent.insert(station.clone());
                new.then(|| Here::MeterSilent { station: station.clone() })
            }
            FieldEvent::Button { station } => {
                Some(Here::ButtonPressed { station: station.clone() })
            }
            // Told with what the cloud hears of it.
            FieldEvent::UnitDown { .. }
            | FieldEvent::UnitBack { .. }
            | FieldEvent::BusDown { .. }
            | FieldEvent::BusBack { .. } => None,
        }
    }
}

impl Daemon {
    /// Tells who watches.
    pub(super) fn announce(&self, here: Here) {
        self.watched.feed.tell(self.clock.now(), Happening::Here(here));
    }

    pub(super) fn tell_records(&self, records: &[Record], head: u64) {
        let first = head + 1 - records.len() as u64;
        for (record, number) in records.iter().zip(first..) {
            let fact = record.fact.clone();
            self.watched.feed.tell(record.at, Happening::Record { record: number, fact });
        }
    }

    pub(super) fn tell_field(&mut self, event: &FieldEvent) {
        if let Some(news) = self.watched.news(event) {
            self.announce(news);
        }
    }

    /// Readers that come and go are events; here is the rest.
    pub(super) fn tell_reader(&self, event: &ReaderEvent) {
        match event {
            ReaderEvent::Ambiguous { ambiguities } => {
                for it in ambiguities {
                    self.announce(Here::ReaderAmbiguous { detail: it.message.clone() });
                }
            }
            ReaderEvent::PcscdUnavailable { message } => {
                self.announce(Here::PcscdUnavailable { detail: message.clone() });
            }
            ReaderEvent::PcscdBack => self.announce(Here::PcscdBack {}),
            ReaderEvent::UnboundTap { name, technology } => {
                self.announce(Here::UnboundTap { name: name.clone(), technology: *technology });
            }
            ReaderEvent::Presented { .. }
            | ReaderEvent::Unreadable { .. }
            | ReaderEvent::Removed { .. }
            | ReaderEvent::Found { .. }
            | ReaderEvent::Lost { .. } => {}
        }
    }

    /// Bad messages and alarms are events of the link's own, which here come without them.
    pub(super) fn tell_cloud(&self, event: &CloudEvent) {
        match event {
            CloudEvent::Connected => self.announce(Here::CloudConnected {}),
            CloudEvent::Disconnected { reason } => {
                self.announce(Here::CloudDisconnected { reason: reason.clone() });
            }
            CloudEvent::BadMessage { topic, why } => {
                self.announce(Here::MessageRefused { topic: topic.clone(), detail: why.clone() });
            }
            CloudEvent::LedgerAlarm(alarm) => self.announce(Here::LinkAlarm { alarm: *alarm }),
            CloudEvent::CloneSuspected => {
                self.announce(Here::LinkAlarm { alarm: EventKind::CloneSuspected });
            }
            CloudEvent::Acknowledged { upto } => self.announce(Here::Acknowledged { upto: *upto }),
            // What becomes of them is told.
            CloudEvent::AllowlistHead(_)
            | CloudEvent::MalformedHead { .. }
            | CloudEvent::AllowlistPart(_)
            | CloudEvent::ReplayEnded { .. }
            | CloudEvent::Command { .. } => {}
        }
    }

    pub(super) fn tell_refusal(&self, refused: &Refusal) {
        let Refusal { version, reason, detail } = refused.clone();
        self.announce(Here::AllowlistRefused { version, reason, detail });
    }

    /// What a step shows at readers; refusals have a notice of their own.
    pub(super) fn answered(&self, step: &Step) -> Vec<Answered> {
        let answer = |command: &Command| {
            let Command::ShowFeedback(reader, feedback) = command else { return None };
            if matches!(feedback, Feedback::Denied(_)) {
                return None;
            }
            let found = step.records.iter().find_map(|record| self.session_of(&record.fact));
            let (station, owner) = found.unzip();
            let (reader, owner) = (reader.clone(), owner.flatten());
            Some(Answered { reader, feedback: *feedback, station, owner })
        };
        step.commands.iter().filter_map(answer).collect()
    }

    /// Which station a start or a stop at a reader is about, and whose session it is.
    fn session_of(&self, fact: &Fact) -> Option<(StationId, Option<Holder>)> {
        if let Fact::SessionStarted(start) = fact {
            return Some((start.station.clone(), start.user.clone().zip(start.badge.clone())));
        }
        let Fact::SessionEnding { session, .. } = fact else { return None };
        let holds = |view: &crate::core::view::StationView| {
            view.session.as_ref().is_some_and(|open| open.session == *session)
        };
        let view = self.gateway.stations(self.clock.now()).into_iter().find(holds)?;
        let owner = view.session.and_then(|open| open.user.zip(open.badge));
        Some((view.station, owner))
    }

    /// Keeps and tells what became of taps.
    pub(super) fn note_answers(&mut self, answers: Vec<Answered>) {
        for Answered { reader, feedback, station, owner } in answers {
            let decision = match feedback {
                Feedback::Granted => TapDecision::Granted,
                Feedback::Stopped => TapDecision::Stopped,
                Feedback::YoursRunning => TapDecision::YoursRunning,
                Feedback::SelectStation => TapDecision::SelectStation,
                Feedback::Denied(_) => TapDecision::Denied,
            };
            let mut tap = self.tap(reader, decision, station);
            if let Some((user, badge)) = owner.filter(|(user, _)| tap.user.as_ref() != Some(user)) {
                (tap.user, tap.badge) = (Some(user), Some(badge));
            }
            self.announce(Here::Tap(tap.clone()));
            self.keep_tap(tap);
        }
    }

    /// Keeps a refusal; who watches is told as the cloud is.
    pub(super) fn note_refusal(&mut self, notice: &Notice) {
        let Notice::Denied { reader, station, reason, badge, .. } = notice else { return };
        let mut tap = self.tap(reader.clone(), TapDecision::Denied, station.clone());
        tap.reason = Some(*reason);
        if tap.badge.is_none() {
            tap.badge = badge.clone();
        }
        self.keep_tap(tap);
    }

    fn tap(
        &self,
        reader: ReaderId,
        decision: TapDecision,
        station: Option<StationId>,
    ) -> TapStatus {
        let holder = self.watched.holders.get(&reader).cloned().flatten();
        let (user, badge) = holder.unzip();
        let (at, reason): (_, Option<Denial>) = (self.clock.now().wall, None);
        TapStatus { at, reader, decision, reason, station, user, badge }
    }

    fn keep_tap(&mut self, tap: TapStatus) {
        self.watched.taps.push_front(tap);
        self.watched.taps.truncate(TAPS);
    }
}

fn position(station: StationId, report: &SwitchReport) -> Here {
    match report {
        SwitchReport::Closed { feedback } => Here::SwitchClosed { station, feedback: *feedback },
        SwitchReport::Open { feedback } => Here::SwitchOpen { station, feedback: *feedback },
        SwitchReport::Unknown => Here::SwitchUnknown { station },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_news() {
        let mut watched = Watched::default();
        let washer = StationId::from("washer-1");
        let open = SwitchReport::Open { feedback: None };
        let switch = |report: &SwitchReport| FieldEvent::Switch {
            station: washer.clone(),
            report: report.clone(),
        };
        let silent = FieldEvent::MeterSilent { station: washer.clone() };

        let news = Watched::news;
        let told = Here::SwitchOpen { station: washer.clone(), feedback: None };
        assert_eq!(news(&mut watched, &switch(&open)), Some(told));
        assert_eq!(news(&mut watched, &switch(&open)), None);
        let closed = SwitchReport::Closed { feedback: Some(true) };
        let told = Here::SwitchClosed { station: washer.clone(), feedback: Some(true) };
        assert_eq!(news(&mut watched, &switch(&closed)), Some(told));

        let told = Here::MeterSilent { station: washer.clone() };
        assert_eq!(news(&mut watched, &silent), Some(told));
        assert_eq!(news(&mut watched, &silent), None);
    }
}
