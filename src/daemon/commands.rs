//! Commands of the operator: each acts once, and its newest reply is on disk before it is sent.
//!
//! A start is noted before the core hears of it, under the id that its session will have: after a
//! power cut the ledger tells whether it began.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::core::ids::SessionId;
use crate::core::ledger::{Fact, Record};
use crate::core::orders::{Answer, OrderedBy, StopTarget};
use crate::daemon::event_loop::Daemon;
use crate::io::journal;
use crate::io::mqtt::Replay;
use crate::io::store::KeptReply;
use crate::protocol::cloud::command::{
    BadgeOverrideClear, Command, LedgerHash, LedgerReplay, LogLevel, Operation, StationStart,
    StationStop, Unreadable,
};
use crate::protocol::cloud::{
    AllowlistReport, AllowlistStanding, CommandReply, Down, EventBody, ReplyStatus, Topics, command,
};

/// Starts that may wait for their switch at once: a building has fewer stations.
const MAX_ORDERS: usize = 64;

/// What is known of commands while the daemon runs.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// The connection whose commands are counted.
    nonce: String,
    /// The highest count on it.
    counted: Option<u64>,
    /// Starts that the core has not answered to the end.
    starts: Vec<Start>,
    /// Stops that wait for an idle moment, by the session that they end.
    stops: Vec<(SessionId, KeptCommand)>,
    /// Until when another level is logged.
    log_until: Option<Instant>,
}

#[derive(Debug)]
struct Start {
    command: KeptCommand,
    answers: mpsc::Receiver<Answer>,
}

/// What is kept of a command beside its reply.
#[derive(Clone, Debug)]
struct KeptCommand {
    id: String,
    /// Operation and arguments as JSON.
    text: String,
}

impl KeptCommand {
    fn of(command: &Command) -> KeptCommand {
        let text = json!({"op": command.op, "args": command.args}).to_string();
        KeptCommand { id: command.id.clone(), text }
    }

    fn done(&self, data: Value) -> CommandReply {
        CommandReply::new(&self.id, ReplyStatus::Done, data)
    }

    fn accepted(&self, data: Value) -> CommandReply {
        CommandReply::new(&self.id, ReplyStatus::Accepted, data)
    }

    fn rejected(&self, code: &str) -> CommandReply {
        CommandReply::rejected(&self.id, code, Value::Null)
    }
}

impl Daemon {
    /// A command with a whole frame, verified where keys are set.
    pub(super) async fn on_command(&mut self, command: Command, nonce: &str) {
        match self.store.reply(command.id.clone()).await {
            Ok(Some(kept)) => return self.send_kept(&kept),
            Ok(None) => {}
            Err(error) => {
                tracing::error!("a command cannot be carried out: {error}");
                let data = Value::Null;
                let code = "storage_failure";
                return self.send_reply(CommandReply::rejected(&command.id, code, data));
            }
        }
        if let Some(refusal) = self.refusal(&command, nonce) {
            return self.send_reply(refusal);
        }
        let kept = KeptCommand::of(&command);
        let now = self.clock.now();
        if now.synced && now.wall >= command.expires {
            return self.conclude(&kept, kept.rejected("expired")).await;
        }
        tracing::info!("command {} of the operator: {}", command.id, command.op);
        match Operation::read(&command) {
            Ok(operation) => self.carry_out(operation, kept).await,
            Err(Unreadable::UnknownOperation) => {
                self.conclude(&kept, kept.rejected("unknown_op")).await;
            }
            Err(Unreadable::BadArguments(detail)) => {
                let topic = Topics::new(&self.settings.gateway_id).down(Down::Command);
                let said = format!("command {} is malformed: {detail}", command.id);
                if self.send_limited(EventBody::BadMessage { topic, detail }) {
                    tracing::warn!("{said}");
                }
                self.conclude(&kept, kept.rejected("bad_message")).await;
            }
        }
    }

    /// Why a command is not carried out whatever it wants. None of this is kept: the same id may
    /// come again with the right nonce.
    fn refusal(&mut self, command: &Command, nonce: &str) -> Option<CommandReply> {
        let rejected = |code, data| Some(CommandReply::rejected(&command.id, code, data));
        if self.trusts_a_key() {
            if self.commands.nonce != nonce {
                self.commands.nonce = nonce.to_owned();
                self.commands.counted = None;
            }
            let counted = self.commands.counted;
            let grows = command.ctr.is_some_and(|ctr| counted.is_none_or(|last| ctr > last));
            if command.nonce.as_deref() != Some(nonce) || !grows {
                return rejected("stale", json!({"nonce": nonce}));
            }
            self.commands.counted = command.ctr;
        } else if command.op == "station.start" {
            return rejected("unsigned", Value::Null);
        }
        None
    }

    /// Whether what comes down is signed.
    pub(super) fn trusts_a_key(&self) -> bool {
        let cloud = self.running.config.cloud.as_ref();
        cloud.is_some_and(|cloud| !cloud.trusted_keys.is_empty())
    }

    async fn carry_out(&mut self, operation: Operation, kept: KeptCommand) {
        let reply = match operation {
            Operation::StationStart(start) => return self.start_remotely(start, kept).await,
            Operation::StationStop(stop) => return self.stop_remotely(stop, kept).await,
            Operation::LedgerReplay(replay) => return self.replay(replay, kept).await,
            Operation::StationOutOfService(mark) => {
                let marked = self.take_out_of_service(mark.station, mark.note).await;
                of_mark(marked, &kept)
            }
            Operation::StationInService(mark) => {
                let marked = self.return_to_service(mark.station).await;
                of_mark(marked, &kept)
            }
            Operation::LedgerHash(wanted) => self.ledger_hashes(wanted, &kept).await,
            Operation::AllowlistReport => self.report_current_allowlist(&kept),
            Operation::StateReport => {
                self.publish_state().await;
                if let Some(cloud) = &self.cloud {
                    cloud.report_state();
                }
                kept.done(Value::Null)
            }
            Operation::BadgeOverrideClear(BadgeOverrideClear { badge }) => {
                match self.clear_override_of(&badge, "operator").await {
                    Ok(true) => kept.done(Value::Null),
                    Ok(false) => kept.rejected("not_blocked"),
                    Err(error) => failed_storage(&kept, &error),
                }
            }
            Operation::LogLevel(LogLevel { level, time }) => {
                journal::set_level(Some(level.as_str()));
                self.commands.log_until = Some(Instant::now() + time);
                tracing::warn!("{} is logged for {} s", level.as_str(), time.as_secs());
                kept.done(json!({"level": level, "for_s": time.as_secs()}))
            }
        };
        self.conclude(&kept, reply).await;
    }

    async fn start_remotely(&mut self, start: StationStart, kept: KeptCommand) {
        let badge = match start.badge {
            None => None,
            Some(badge) => match self.store.lookup_badge(badge).await {
                Ok(Some(found)) => Some(found),
                Ok(None) => return self.conclude(&kept, kept.rejected("unknown_badge")).await,
                Err(error) => {
                    let reply = failed_storage(&kept, &error);
                    return self.conclude(&kept, reply).await;
                }
            },
        };
        if self.commands.starts.len() >= MAX_ORDERS {
            return self.send_reply(kept.rejected("busy"));
        }
        let candidate = crate::daemon::execute::new_session_id();
        let begun = kept.accepted(json!({"session": candidate}));
        if !self.keep(&kept, &begun, true).await {
            return self.send_reply(kept.rejected("storage_failure"));
        }
        let by = OrderedBy::Operator;
        let user = Some(start.user);
        let answers = self.order_start(by, start.station, candidate, user, badge).await;
        self.commands.starts.push(Start { command: kept, answers });
        self.follow_commands().await;
    }

    async fn stop_remotely(&mut self, stop: StationStop, kept: KeptCommand) {
        let target = match stop.target {
            command::StopTarget::Station(station) => StopTarget::Station(station),
            command::StopTarget::Session(session) => StopTarget::Session(session),
        };
        let mut answers = self.order_stop(OrderedBy::Operator, target, stop.now).await;
        // The core answers a stop at once.
        let reply = match answers.try_recv() {
            Ok(Answer::EndsWhenIdle(session)) => {
                self.commands.stops.push((session, kept.clone()));
                kept.accepted(json!({"session": session}))
            }
            Ok(Answer::Ending(session)) => kept.done(json!({"session": session})),
            Ok(Answer::NoStation) => kept.rejected("unknown_station"),
            Ok(answer) => of_answer(&kept, answer).unwrap_or_else(|| kept.rejected("no_session")),
            Err(_) => kept.rejected("no_session"),
        };
        self.conclude(&kept, reply).await;
    }

    async fn replay(&mut self, wanted: LedgerReplay, kept: KeptCommand) {
        let LedgerReplay { epoch, from, to } = wanted;
        let standing = match self.store.standing().await {
            Ok(standing) => standing,
            Err(error) => {
                let reply = failed_storage(&kept, &error);
                return self.conclude(&kept, reply).await;
            }
        };
        let head = standing.head.seq;
        let there = from >= standing.floor.max(1) && from <= to && to <= head;
        if epoch != standing.head.epoch || !there {
            let data = json!({"epoch": standing.head.epoch, "floor": standing.floor, "head": head});
            let reply = CommandReply::rejected(&kept.id, "range_unavailable", data);
            return self.conclude(&kept, reply).await;
        }
        let replay = Replay { id: kept.id.clone(), epoch, next: from, to };
        let taken = self.cloud.as_ref().is_some_and(|cloud| cloud.replay(replay));
        let reply = if taken { kept.accepted(Value::Null) } else { kept.rejected("busy") };
        self.conclude(&kept, reply).await;
    }

    /// A replay is with the broker, or cannot go on.
    pub(super) async fn on_replay_ended(&mut self, id: String, complete: bool) {
        let Ok(Some(KeptReply { command, .. })) = self.store.reply(id.clone()).await else {
            return;
        };
        let kept = KeptCommand { id, text: command };
        let reply = if complete {
            kept.done(Value::Null)
        } else {
            CommandReply::failed(&kept.id, "range_unavailable", Value::Null)
        };
        self.conclude(&kept, reply).await;
    }

    async fn ledger_hashes(&mut self, wanted: LedgerHash, kept: &KeptCommand) -> CommandReply {
        let standing = match self.store.standing().await {
            Ok(standing) => standing,
            Err(error) => return failed_storage(kept, &error),
        };
        let unavailable = || {
            let (floor, head) = (standing.floor, standing.head.seq);
            let data = json!({"epoch": standing.head.epoch, "floor": floor, "head": head});
            CommandReply::rejected(&kept.id, "range_unavailable", data)
        };
        if wanted.epoch != standing.head.epoch {
            return unavailable();
        }
        match self.store.hashes(wanted.seqs.clone()).await {
            Ok(hashes) if hashes.iter().all(Option::is_some) => {
                let hashes: Vec<Value> = wanted
                    .seqs
                    .iter()
                    .zip(hashes.into_iter().flatten())
                    .map(|(seq, hash)| json!({"seq": seq, "hash": hex::encode(hash)}))
                    .collect();
                kept.done(json!({"epoch": wanted.epoch, "hashes": hashes}))
            }
            Ok(_) => unavailable(),
            Err(error) => failed_storage(kept, &error),
        }
    }

    fn report_current_allowlist(&mut self, kept: &KeptCommand) -> CommandReply {
        let current = self.gateway.allowlist().map(AllowlistStanding::from);
        if let (Some(cloud), Some(applied)) = (&self.cloud, current.clone()) {
            cloud.report_allowlist(AllowlistReport::Applied { applied });
        }
        kept.done(json!({"current": current}))
    }

    // Replies.

    /// Keeps a reply, then sends it.
    async fn conclude(&mut self, kept: &KeptCommand, reply: CommandReply) {
        self.keep(kept, &reply, false).await;
        self.send_reply(reply);
    }

    /// Keeps a reply; one that is `private` is not sent by itself after a restart.
    async fn keep(&mut self, kept: &KeptCommand, reply: &CommandReply, private: bool) -> bool {
        let text = serde_json::to_string(reply).expect("a reply is plain JSON");
        let KeptCommand { id, text: command } = kept.clone();
        let kept = KeptReply { id, command, reply: text, delivered: private };
        let saved = self.store.keep_reply(kept).await;
        if let Err(error) = &saved {
            tracing::error!("a reply to the operator cannot be kept: {error}");
        }
        saved.is_ok()
    }

    fn send_kept(&self, kept: &KeptReply) {
        match serde_json::from_str(&kept.reply) {
            Ok(reply) => self.send_reply(reply),
            Err(error) => tracing::error!("the kept reply to {} is damaged: {error}", kept.id),
        }
    }

    fn send_reply(&self, reply: CommandReply) {
        let (id, status) = (&reply.id, reply.status);
        tracing::info!("command {id}: {status:?} {}", reply.code.as_deref().unwrap_or_default());
        if let Some(cloud) = &self.cloud {
            cloud.reply(reply);
        }
    }

    /// Passes on what the core has answered to starts meanwhile.
    pub(super) async fn follow_commands(&mut self) {
        if self.commands.starts.is_empty() {
            return;
        }
        for mut start in std::mem::take(&mut self.commands.starts) {
            let mut over = false;
            loop {
                match start.answers.try_recv() {
                    Ok(answer) => {
                        over |= answer.is_last();
                        if let Some(reply) = of_answer(&start.command, answer) {
                            self.conclude(&start.command, reply).await;
                        }
                    }
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        if !over {
                            let id = &start.command.id;
                            let reply = CommandReply::failed(id, "interrupted", Value::Null);
                            self.conclude(&start.command, reply).await;
                        }
                        over = true;
                        break;
                    }
                }
            }
            if !over {
                self.commands.starts.push(start);
            }
        }
    }

    /// Stops that waited for these sessions are done.
    pub(super) async fn note_ended_sessions(&mut self, records: &[Record]) {
        if self.commands.stops.is_empty() {
            return;
        }
        for record in records {
            let Fact::SessionEnded(end) = &record.fact else { continue };
            let session = end.start.session;
            let waiting = std::mem::take(&mut self.commands.stops);
            let (done, waiting): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(id, _)| *id == session);
            self.commands.stops = waiting;
            for (_, kept) in done {
                let reply = kept.done(json!({"session": session}));
                self.conclude(&kept, reply).await;
            }
        }
    }

    /// What the last run of the daemon left undone or unsaid.
    pub(super) async fn resume_commands(&mut self) {
        let replies = match self.store.replies().await {
            Ok(replies) => replies,
            Err(error) => return tracing::error!("commands cannot be resumed: {error}"),
        };
        for kept in replies {
            let reply: Option<CommandReply> = serde_json::from_str(&kept.reply).ok();
            match reply {
                Some(reply) if reply.status == ReplyStatus::Accepted => {
                    self.resume_command(kept, &reply).await;
                }
                Some(reply) if !kept.delivered => self.send_reply(reply),
                Some(_) => {}
                None => tracing::error!("the kept reply to {} is damaged", kept.id),
            }
        }
    }

    async fn resume_command(&mut self, kept: KeptReply, accepted: &CommandReply) {
        #[derive(serde::Deserialize)]
        struct Begun {
            op: String,
            args: Value,
        }
        let begun: Option<Begun> = serde_json::from_str(&kept.command).ok();
        let kept = KeptCommand { id: kept.id, text: kept.command };
        let session: Option<SessionId> =
            accepted.data["session"].as_str().and_then(|id| id.parse().ok());
        let runs = session.is_some_and(|session| self.has_session(session));
        let interrupted = CommandReply::failed(&kept.id, "interrupted", Value::Null);
        let reply = match (begun.as_ref().map(|begun| begun.op.as_str()), session) {
            (Some("station.start"), Some(session)) if runs => {
                kept.done(json!({"session": session}))
            }
            (Some("station.stop"), Some(session)) if runs => {
                let target = StopTarget::Session(session);
                // It waits for an idle moment as before; its end is told below.
                drop(self.order_stop(OrderedBy::Operator, target, false).await);
                self.commands.stops.push((session, kept));
                return;
            }
            (Some("station.stop"), Some(session)) => kept.done(json!({"session": session})),
            (Some("ledger.replay"), _) => {
                let args = begun.map(|begun| begun.args).unwrap_or_default();
                match serde_json::from_value::<LedgerReplay>(args) {
                    Ok(replay) => return self.replay(replay, kept).await,
                    Err(_) => interrupted,
                }
            }
            (Some(_) | None, _) => interrupted,
        };
        self.conclude(&kept, reply).await;
    }

    fn has_session(&self, session: SessionId) -> bool {
        let stations = self.gateway.stations(self.clock.now());
        stations.iter().filter_map(|view| view.session.as_ref()).any(|it| it.session == session)
    }

    /// Back to the usual level of the log once a command's time is over.
    pub(super) fn reset_log_level(&mut self) {
        if self.commands.log_until.is_some_and(|until| until <= Instant::now()) {
            self.commands.log_until = None;
            journal::set_level(None);
            tracing::info!("the usual level is logged again");
        }
    }
}

/// What an answer of the core says to the cloud; `None` where another follows at once.
fn of_answer(kept: &KeptCommand, answer: Answer) -> Option<CommandReply> {
    Some(match answer {
        Answer::Starting(session) => kept.accepted(json!({"session": session})),
        Answer::Running(session) | Answer::Ending(session) => {
            kept.done(json!({"session": session}))
        }
        Answer::NotClosed(session) => {
            CommandReply::failed(&kept.id, "switch_failed", json!({"session": session}))
        }
        Answer::EndsWhenIdle(session) => kept.accepted(json!({"session": session})),
        Answer::Refused(denial) => kept.rejected(denial.as_str()),
        Answer::Opening => kept.done(Value::Null),
        Answer::NoMeter | Answer::MeterSilent | Answer::MeterReplaced { .. } => return None,
        Answer::NoSession => kept.rejected("no_session"),
        Answer::NoStation => kept.rejected("unknown_station"),
    })
}

fn of_mark(marked: Result<bool, crate::io::store::StoreError>, kept: &KeptCommand) -> CommandReply {
    match marked {
        Ok(true) => kept.done(Value::Null),
        Ok(false) => kept.rejected("unknown_station"),
        Err(error) => failed_storage(kept, &error),
    }
}

fn failed_storage(kept: &KeptCommand, error: &crate::io::store::StoreError) -> CommandReply {
    tracing::error!("command {} failed: {error}", kept.id);
    CommandReply::failed(&kept.id, "storage_failure", Value::Null)
}
