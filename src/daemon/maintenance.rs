//! What a technician orders at the console: power for maintenance, the end of a session, a station
//! out of service, an exchanged meter. The core decides; here it is said in words.

use tokio::sync::{mpsc, oneshot};

use crate::core::access::Denial;
use crate::core::ids::{SessionId, StationId};
use crate::core::ledger::Authority;
use crate::core::orders::{Answer, OrderedBy, StopTarget};
use crate::daemon::event_loop::Daemon;
use crate::daemon::execute::new_session_id;
use crate::io::control::Peer;
use crate::io::store::StoreError;
use crate::protocol::control::{Maintenance, NOTE_MAX_CHARS, Reply};

impl Daemon {
    pub(super) async fn on_maintenance(
        &mut self,
        order: Maintenance,
        peer: Peer,
        reply: oneshot::Sender<Reply>,
    ) {
        tracing::warn!("{peer} orders {order:?}");
        let marked = match order {
            Maintenance::SwitchOn { station } => return self.switch_on(station, reply).await,
            Maintenance::SwitchOff { station } => return self.switch_off(station, reply).await,
            Maintenance::EndSession { session, now } => {
                return self.end_session(&session, now, reply).await;
            }
            Maintenance::ReplaceMeter { station } => {
                return self.replace_meter(station, reply).await;
            }
            Maintenance::TakeOutOfService { station, note } => self.mark(station, note).await,
            Maintenance::ReturnToService { station } => self.unmark(station).await,
        };
        // A command that gave up waiting is gone; the mark holds.
        let _ = reply.send(marked);
    }

    async fn switch_on(&mut self, station: StationId, reply: oneshot::Sender<Reply>) {
        let by = OrderedBy::Technician;
        let candidate = new_session_id();
        let answers = self.order_start(by, station.clone(), candidate, None, None).await;
        self.tell(station.to_string(), answers, reply);
    }

    /// A resident's session is ended by its own command, so that nobody is cut by mistake.
    async fn switch_off(&mut self, station: StationId, reply: oneshot::Sender<Reply>) {
        let view = self.gateway.station(&station, self.clock.now());
        let session = view.and_then(|view| view.session);
        if let Some(session) = session.filter(|s| s.authorised_by != Authority::Technician) {
            let user = session.user.map_or("a resident".into(), |user| user.to_string());
            let _ = reply.send(Reply::Error(format!(
                "station {station} is used by {user}; end that with: tapgate session end {station}"
            )));
            return;
        }
        let target = StopTarget::Station(station.clone());
        let answers = self.order_stop(OrderedBy::Technician, target, true).await;
        self.tell(station.to_string(), answers, reply);
    }

    async fn end_session(&mut self, named: &str, now: bool, reply: oneshot::Sender<Reply>) {
        let target = match named.parse::<SessionId>() {
            Ok(session) => StopTarget::Session(session),
            Err(_) => StopTarget::Station(named.into()),
        };
        let answers = self.order_stop(OrderedBy::Technician, target, now).await;
        self.tell(named.to_owned(), answers, reply);
    }

    async fn replace_meter(&mut self, station: StationId, reply: oneshot::Sender<Reply>) {
        let answers = self.order_replacement(station.clone()).await;
        self.tell(station.to_string(), answers, reply);
    }

    async fn mark(&mut self, station: StationId, note: Option<String>) -> Reply {
        if note.as_ref().is_some_and(|note| note.chars().count() > NOTE_MAX_CHARS) {
            return Reply::Error(format!("a note has at most {NOTE_MAX_CHARS} characters"));
        }
        let outcome = self.take_out_of_service(station.clone(), note).await;
        self.marked(&station, "out of service; a running session goes on to its end", outcome)
    }

    async fn unmark(&mut self, station: StationId) -> Reply {
        let outcome = self.return_to_service(station.clone()).await;
        self.marked(&station, "in service", outcome)
    }

    fn marked(&self, station: &StationId, how: &str, outcome: Result<bool, StoreError>) -> Reply {
        match outcome {
            Ok(true) => Reply::Done(format!("{station} is {how}")),
            Ok(false) => Reply::Unknown(self.no_such_station(station.as_str())),
            Err(error) => Reply::Storage(format!("nothing is changed: {error}")),
        }
    }

    fn no_such_station(&self, named: &str) -> String {
        let stations = self.gateway.stations(self.clock.now());
        let known: Vec<&str> = stations.iter().map(|view| view.station.as_str()).collect();
        format!("there is no station {named}; the site has: {}", known.join(", "))
    }

    /// Puts the core's last answer in words, whenever it comes: the loop does not wait for it.
    fn tell(
        &self,
        named: String,
        mut answers: mpsc::Receiver<Answer>,
        reply: oneshot::Sender<Reply>,
    ) {
        let unknown = self.no_such_station(&named);
        tokio::spawn(async move {
            while let Some(answer) = answers.recv().await {
                if answer.is_last() {
                    // A command that gave up waiting is gone.
                    let _ = reply.send(in_words(&named, answer, unknown));
                    return;
                }
            }
        });
    }
}

fn in_words(named: &str, answer: Answer, unknown: String) -> Reply {
    match answer {
        Answer::Starting(session) | Answer::Running(session) => {
            Reply::Done(format!("{named} has power, session {session}"))
        }
        Answer::NotClosed(_) => Reply::Error(format!(
            "the switch of {named} was not seen closed; look at the relay: tapgate status"
        )),
        Answer::Ending(session) => {
            Reply::Done(format!("session {session} ends, its switch is being opened"))
        }
        Answer::EndsWhenIdle(session) => Reply::Done(format!(
            "session {session} ends as soon as the machine is idle; --now does not wait for it"
        )),
        Answer::Opening => Reply::Done(format!("the switch of {named} is being opened")),
        Answer::Refused(Denial::Occupied) => Reply::Error(format!(
            "{named} is in use; wait for the end of the session, or: tapgate session end {named}"
        )),
        Answer::Refused(denial) => Reply::Error(format!("{named} is not started: {denial}")),
        Answer::NoSession => Reply::Error(format!(
            "there is no open session of {named}; tapgate session list shows all"
        )),
        Answer::NoStation => Reply::Unknown(unknown),
        Answer::MeterReplaced { old_wh, new_wh } => {
            let old = old_wh.map_or("nothing".into(), |wh| format!("{wh} Wh"));
            Reply::Done(format!("the meter of {named} goes on from {new_wh} Wh, after {old}"))
        }
        Answer::MeterSilent => Reply::Error(format!(
            "the meter of {named} does not answer; check it with: tapgate meter read {named}"
        )),
        Answer::NoMeter => Reply::Error(format!("{named} has no meter")),
    }
}
