//! Runs a step: commits its records, then runs its commands in order.

use crate::core::event::{Command, Event, Step, Tap};
use crate::core::ids::SessionId;
use crate::daemon::event_loop::{Chore, Daemon};
use crate::io::modbus::{FieldCommand, FieldEvent};
use crate::io::pcsc::ReaderEvent;
use crate::io::store::StoreError;

impl Daemon {
    /// Record, then act. A commit that fails goes back to the core, which denies what would have
    /// started; nothing is acted on before its record is on disk.
    pub(super) async fn execute(&mut self, step: Step) {
        let (step, head) = self.commit(step).await;
        // Before a switch opens whose end could not be recorded: no restart may close it again.
        self.keep_memos(false).await;
        let answers = self.answered(&step);
        for command in step.commands {
            let awaited = is_awaited(&command);
            self.run_command(command);
            if awaited {
                // The bus sends it before this loop goes on to logs and messages.
                tokio::task::yield_now().await;
            }
        }
        if let Some(head) = head {
            self.log_records(&step.records, head);
            self.note_ended_sessions(&step.records).await;
            self.tell_records(&step.records, head);
            if let Some(cloud) = &self.cloud {
                cloud.records_committed();
            }
        }
        self.note_answers(answers);
    }

    /// The step to go on with, and the last record's number where records were saved.
    async fn commit(&mut self, step: Step) -> (Step, Option<u64>) {
        if step.records.is_empty() {
            return (step, None);
        }
        match self.store.commit(step.records.clone()).await {
            Ok(head) => {
                self.watch.note_done(Chore::KeepTime);
                (step, Some(head.seq))
            }
            Err(StoreError::Impossible { kind, reason }) => {
                // Memory and disk disagree, and the disk is right: a restart rebuilds from it, and
                // touches no switch.
                self.fatal = Some(format!("{kind} contradicts the ledger: {reason}"));
                (Step::default(), None)
            }
            Err(error) => {
                tracing::error!("records cannot be saved, starts are refused: {error}");
                (self.gateway.handle_commit_failure(step, self.clock.now()), None)
            }
        }
    }

    /// Keeps what sessions remember beyond their records, where it changed.
    pub(super) async fn keep_memos(&mut self, stopping: bool) {
        let memos = self.gateway.memos(stopping.then(|| self.clock.now()));
        if memos == self.kept_memos {
            return;
        }
        match self.store.keep_memos(memos.clone()).await {
            Ok(()) => self.kept_memos = memos,
            Err(error) => tracing::error!("a restart would forget what waits: {error}"),
        }
    }

    fn run_command(&mut self, command: Command) {
        match command {
            Command::CloseSwitch(station) => self.field.send(FieldCommand::CloseSwitch(station)),
            Command::OpenSwitch(station) => self.field.send(FieldCommand::OpenSwitch(station)),
            Command::ReadSwitch(station) => self.field.send(FieldCommand::ReadSwitch(station)),
            Command::ReadMeter(station) => self.field.send(FieldCommand::ReadMeter(station)),
            Command::ReadRegister(station) => self.field.send(FieldCommand::ReadRegister(station)),
            Command::PaceMeter(station, pace) => {
                self.field.send(FieldCommand::Pace(station, pace));
            }
            Command::SetLamp(station, lit) => self.field.send(FieldCommand::SetLamp(station, lit)),
            Command::WatchButtons(reader, stations) => {
                let stations = self.watch.buttons(reader, stations);
                self.field.send(FieldCommand::WatchButtons(stations));
            }
            Command::ShowFeedback(reader, feedback) => {
                tracing::debug!(%reader, ?feedback, "feedback");
                self.pcsc.show(&reader, feedback);
            }
            Command::Notify(notice) => {
                self.notify(&notice);
                self.note_refusal(&notice);
            }
            Command::PublishStation(station) => self.publish_station(&station),
            Command::Answer(order, answer) => self.orders.answer(order, answer),
        }
    }

    pub(super) async fn on_field(&mut self, event: FieldEvent) {
        self.watch_test(&event);
        self.tell_field(&event);
        match event {
            FieldEvent::Switch { station, report } => {
                self.handle(Event::SwitchReported { station, report }).await;
            }
            FieldEvent::Meter { station, reading } => {
                self.handle(Event::MeterRead { station, reading }).await;
            }
            FieldEvent::MeterSilent { station } => {
                self.handle(Event::MeterSilent { station }).await;
            }
            FieldEvent::Button { station } => {
                self.handle(Event::ButtonPressed { station, candidate: new_session_id() }).await;
            }
            FieldEvent::UnitDown { bus, unit, device, error, figures } => {
                self.on_unit_down((bus, unit, device), error, figures);
            }
            FieldEvent::UnitBack { bus, unit, device, figures } => {
                self.on_unit_back((bus, unit, device), figures);
            }
            FieldEvent::BusDown { bus, error } => self.on_bus_down(bus, error),
            FieldEvent::BusBack { bus } => self.on_bus_back(&bus),
        }
    }

    pub(super) async fn on_reader(&mut self, event: ReaderEvent) {
        self.watch.note_reader(&event);
        self.tell_reader(&event);
        match event {
            ReaderEvent::Presented { reader, uid, technology, .. } => {
                let entry = self.store.lookup(uid).await.unwrap_or_else(|error| {
                    tracing::error!("the allowlist cannot be read, badges are refused: {error}");
                    None
                });
                let watched = self.taps.is_watched().then(|| {
                    let stations = self.stations_behind(&reader);
                    (reader.clone(), self.verdicts(&stations, (uid, technology), entry.as_ref()))
                });
                self.watched.note_holder(&reader, entry.as_ref());
                let candidate = new_session_id();
                let tap = Tap { reader, uid, technology, entry, candidate };
                self.handle(Event::BadgePresented(tap)).await;
                if let Some((reader, verdicts)) = watched {
                    self.show_tap(reader, (uid, technology), verdicts).await;
                }
            }
            ReaderEvent::Unreadable { reader, technology } => {
                self.show_card(Some(reader.clone()), None, technology);
                self.watched.note_holder(&reader, None);
                self.handle(Event::BadgeUnreadable { reader, technology }).await;
            }
            ReaderEvent::Removed { reader } => self.handle(Event::BadgeRemoved { reader }).await,
            ReaderEvent::Found { reader, name } => {
                self.on_reader_found(&reader, &name);
                self.handle(Event::ReaderFound { reader }).await;
            }
            ReaderEvent::Lost { reader, why } => {
                self.on_reader_lost(&reader, &why);
                self.handle(Event::BadgeRemoved { reader: reader.clone() }).await;
                self.handle(Event::ReaderLost { reader }).await;
            }
            ReaderEvent::UnboundTap { name, technology } => {
                self.show_card(None, Some(name.clone()), technology);
                let technology = technology.as_str();
                tracing::warn!(
                    "a {technology} card on {name:?}, which is bound to no [[reader]], or not to one \
                     alone; nothing is authorised there: tapgate readers"
                );
            }
            ReaderEvent::Ambiguous { ambiguities } if ambiguities.is_empty() => {
                tracing::info!("readers and bindings match one to one again");
            }
            ReaderEvent::Ambiguous { ambiguities } => {
                ambiguities.iter().for_each(|it| tracing::error!("{}", it.message));
            }
            ReaderEvent::PcscdUnavailable { message } => tracing::warn!("{message}"),
            ReaderEvent::PcscdBack => tracing::info!("pcscd answers again"),
        }
    }
}

/// Whether a resident waits for the field bus to be told.
fn is_awaited(command: &Command) -> bool {
    match command {
        Command::CloseSwitch(_)
        | Command::OpenSwitch(_)
        | Command::ReadMeter(_)
        | Command::ReadRegister(_) => true,
        Command::ReadSwitch(_)
        | Command::PaceMeter(..)
        | Command::SetLamp(..)
        | Command::WatchButtons(..)
        | Command::ShowFeedback(..)
        | Command::Notify(_)
        | Command::Answer(..)
        | Command::PublishStation(_) => false,
    }
}

/// A version 7 UUID: random enough to be unique even when the clock is wrong.
pub(super) fn new_session_id() -> SessionId {
    SessionId(uuid::Uuid::now_v7().into_bytes())
}
