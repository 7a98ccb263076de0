//! One MQTT connection: how it comes up, what goes to and fro, and why it ends.
//!
//! rumqttc writes, reads and numbers the packets. Its event loop is not used: it keeps what was not
//! confirmed, sends some of it again and loses the rest; it cannot pass over a message that is too
//! long, and it hides the line. Since all that matters lies in the ledger, everything of a
//! connection is thrown away with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::{
    Connect, ConnectReturnCode, Disconnect, Event, LastWill, Login, MqttState, Packet, PingReq,
    Publish, QoS, Request, StateError, Subscribe,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::line::{Line, broke, dial, explain, is_close};
use super::login::password;
use super::packets::{MAX_PACKET_BYTES, Packets};
use super::{Clock, Timing};
use crate::config::Cloud;
use crate::protocol::cloud::{Offline, Topics};

/// Requests that are taken without waiting; more than are ever unconfirmed.
const REQUESTS: usize = 2 * super::session::MAX_UNCONFIRMED;
/// Packet ids: far more than are ever unconfirmed, so that none comes round while in use.
const PACKET_IDS: u16 = 256;
/// How late the answer to a ping may come on a line that is fine.
const ANSWER: Duration = Duration::from_secs(5);
/// Events that wait for the session.
const EVENTS: usize = 8;
/// So much since the last answer to a ping shows that the line works.
const BUSY_BYTES: usize = 4_096;
/// A burst of messages is confirmed whenever its answers have so many bytes.
const FLUSH_BYTES: usize = 4_096;

/// What identifies a connection.
pub(super) struct Identity<'a> {
    pub(super) gateway_id: &'a str,
    pub(super) topics: &'a Topics,
    pub(super) conn: u64,
}

/// Why a connection did not come up.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) reason: String,
    /// The broker may have taken the gateway in: then its last will may still come, and the
    /// connection's number is spent.
    pub(super) may_have_connected: bool,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) reason: String,
    /// The broker closed it although the line was fine, as it does when another client comes with
    /// the same id.
    pub(super) closed_by_broker: bool,
}

impl From<String> for Lost {
    fn from(reason: String) -> Lost {
        Lost { reason, closed_by_broker: false }
    }
}

/// What a session wants sent; each is taken without waiting, or false.
pub(super) struct Requests(mpsc::Sender<Request>);

impl Requests {
    pub(super) fn publish(&self, topic: String, retain: bool, payload: Vec<u8>) -> bool {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.retain = retain;
        self.0.try_send(Request::Publish(publish)).is_ok()
    }

    pub(super) fn subscribe(&self, filter: String) -> bool {
        let subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        self.0.try_send(Request::Subscribe(subscribe)).is_ok()
    }

    pub(super) fn disconnect(&self) -> bool {
        self.0.try_send(Request::Disconnect(Disconnect)).is_ok()
    }
}

/// A channel for the events of one connection.
pub(super) fn event_channel() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(EVENTS)
}

/// A connection that is up.
pub(super) struct Connection {
    wire: Wire,
    state: MqttState,
    requests: mpsc::Receiver<Request>,
    /// When the broker last showed that it is there, and what has come since.
    heard: Instant,
    bytes_since: usize,
}

impl Connection {
    /// Reaches the broker and is taken in by it.
    pub(super) async fn open(
        cloud: &Cloud,
        identity: &Identity<'_>,
        clock: Arc<dyn Clock>,
        timing: &Timing,
    ) -> Result<(Requests, Connection), Failed> {
        let broker = cloud.endpoint();
        let mut may_have_connected = false;
        let opening = async {
            let connect = connect_packet(cloud, identity, timing)?;
            let line = dial(cloud, clock).await?;
            let mut wire = Wire::new(line, broker.clone(), timing.clone());
            may_have_connected = true;
            let answer = wire.introduce(connect).await.map_err(|lost| lost.reason)?;
            match answer {
                Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(wire),
                Packet::ConnAck(ack) => {
                    may_have_connected = false;
                    Err(refusal(ack.code, &broker))
                }
                other => {
                    let kind = format!("{other:?}");
                    let kind = kind.split('(').next().unwrap_or_default();
                    Err(format!(
                        "{broker} does not speak MQTT 3.1.1: it answers with {kind}; check the \
                         port in [cloud] url"
                    ))
                }
            }
        };
        let opened = timeout(timing.network, opening).await.unwrap_or_else(|_| {
            Err(format!("{broker} does not answer; check the network and the firewall"))
        });
        let wire = opened.map_err(|reason| Failed { reason, may_have_connected })?;
        let (sender, requests) = mpsc::channel(REQUESTS);
        let state = MqttState::new(PACKET_IDS, false);
        let heard = Instant::now();
        let connection = Connection { wire, state, requests, heard, bytes_since: 0 };
        Ok((Requests(sender), connection))
    }

    /// Serves the connection until it ends, and says why it did.
    pub(super) async fn run(mut self, events: mpsc::Sender<Event>) -> Lost {
        match self.serve(&events).await {
            Ok(()) => Lost::from("disconnected".to_owned()),
            Err(lost) => lost,
        }
    }

    async fn serve(&mut self, events: &mpsc::Sender<Event>) -> Result<(), Lost> {
        let Timing { keep_alive, silence, .. } = self.wire.timing;
        let mut ping = interval_at(Instant::now() + keep_alive, keep_alive);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.take_in(events).await?.is_none() {
                return Ok(());
            }
            let request = tokio::select! {
                read = self.wire.read() => {
                    let bytes = read.map_err(|lost| self.judged(lost))?;
                    self.on_bytes(bytes);
                    continue;
                }
                request = self.requests.recv() => request,
                _ = ping.tick() => {
                    // Its answer may wait long behind what comes down; the broker wants to hear
                    // from this side all the same.
                    self.state.await_pingresp = false;
                    Some(Request::PingReq(PingReq))
                }
                () = sleep_until(self.heard + silence) => {
                    let (broker, seconds) = (&self.wire.broker, silence.as_secs());
                    return Err(format!("{broker} has been silent for {seconds} s").into());
                }
            };
            // Without a session there is nobody to serve.
            let Some(request) = request else { return Ok(()) };
            let last = matches!(request, Request::Disconnect(_));
            let packet = self.state.handle_outgoing_packet(request);
            let packet = packet.map_err(|error| broke(error, &self.wire.broker))?;
            self.answer(packet)?;
            self.wire.flush().await?;
            if self.hand_over(events).await.is_none() || last {
                return Ok(());
            }
        }
    }

    /// Works off the packets that are here; `None` where nobody wants them any more.
    async fn take_in(&mut self, events: &mpsc::Sender<Event>) -> Result<Option<()>, Lost> {
        while let Some(packet) = self.wire.next()? {
            // Everything else is an answer: both directions work.
            if !matches!(packet, Packet::Publish(_)) {
                self.is_there();
            }
            let answer = match self.state.handle_incoming_packet(packet) {
                // Twice confirmed is confirmed.
                Err(StateError::Unsolicited(_)) => None,
                answer => answer.map_err(|error| broke(error, &self.wire.broker))?,
            };
            self.answer(answer)?;
            if self.wire.outgoing.len() >= FLUSH_BYTES {
                self.wire.flush().await?;
            }
            if self.hand_over(events).await.is_none() {
                return Ok(None);
            }
        }
        self.wire.flush().await?;
        Ok(Some(()))
    }

    /// On a line that is slow and busy the answer to a ping comes late. What comes instead shows as
    /// much, where it is more than a dribble.
    fn on_bytes(&mut self, bytes: usize) {
        self.bytes_since += bytes;
        if self.bytes_since >= BUSY_BYTES {
            self.is_there();
        }
    }

    fn is_there(&mut self) {
        (self.heard, self.bytes_since) = (Instant::now(), 0);
    }

    fn answer(&mut self, packet: Option<Packet>) -> Result<(), Lost> {
        packet.map_or(Ok(()), |packet| self.wire.write(&packet))
    }

    /// Tells the session what happened; `None` where it is gone.
    async fn hand_over(&mut self, events: &mpsc::Sender<Event>) -> Option<()> {
        while let Some(event) = self.state.events.pop_front() {
            events.send(event).await.ok()?;
        }
        Some(())
    }

    /// After a silence the broker closes too, and is right to.
    fn judged(&self, lost: Lost) -> Lost {
        let fine = self.heard.elapsed() <= self.wire.timing.keep_alive + ANSWER;
        Lost { closed_by_broker: lost.closed_by_broker && fine, ..lost }
    }
}

/// Packets on a line.
struct Wire {
    line: Box<dyn Line>,
    packets: Packets,
    outgoing: BytesMut,
    broker: String,
    timing: Timing,
}

impl Wire {
    fn new(line: Box<dyn Line>, broker: String, timing: Timing) -> Wire {
        Wire { line, packets: Packets::default(), outgoing: BytesMut::new(), broker, timing }
    }

    /// Sends the first packet and waits for the answer.
    async fn introduce(&mut self, connect: Packet) -> Result<Packet, Lost> {
        self.write(&connect)?;
        self.flush().await?;
        loop {
            if let Some(answer) = self.next()? {
                return Ok(answer);
            }
            self.read().await.map_err(|lost| match lost.closed_by_broker {
                true => Lost::from(format!(
                    "{} closes the connection before it answers; is this its MQTT port, and does \
                     it want TLS (mqtts://)?",
                    self.broker
                )),
                false => lost,
            })?;
        }
    }

    fn next(&mut self) -> Result<Option<Packet>, Lost> {
        self.packets.next().map_err(|error| broke(error, &self.broker).into())
    }

    /// Waits for bytes of the broker, and tells how many came. Nothing is lost where this is
    /// dropped.
    async fn read(&mut self) -> Result<usize, Lost> {
        match self.line.read_buf(self.packets.room()).await {
            Ok(0) => {
                let broker = &self.broker;
                let reason = format!(
                    "{broker} closed the connection; is another client using this gateway's id?"
                );
                Err(Lost { reason, closed_by_broker: true })
            }
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.ended(&error)),
        }
    }

    fn write(&mut self, packet: &Packet) -> Result<(), Lost> {
        let written = packet.write(&mut self.outgoing, MAX_PACKET_BYTES);
        written.map(drop).map_err(|error| broke(error, &self.broker).into())
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        // A slow line takes a piece at a time.
        while !self.outgoing.is_empty() {
            let written = timeout(self.timing.network, self.line.write_buf(&mut self.outgoing));
            let written = written.await;
            self.in_time(written)?;
        }
        let flushed = timeout(self.timing.network, self.line.flush()).await;
        self.in_time(flushed)
    }

    fn in_time<T>(&self, done: Result<io::Result<T>, Elapsed>) -> Result<(), Lost> {
        match done {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.ended(&error)),
            Err(_) => Err(format!("{} takes no more data; is the line down?", self.broker).into()),
        }
    }

    fn ended(&self, error: &io::Error) -> Lost {
        Lost { reason: explain(error, &self.broker), closed_by_broker: is_close(error) }
    }
}

fn connect_packet(
    cloud: &Cloud,
    identity: &Identity<'_>,
    timing: &Timing,
) -> Result<Packet, String> {
    let password = password(cloud).map_err(|error| error.to_string())?;
    let will = serde_json::to_vec(&Offline::new(identity.conn)).expect("a will is plain JSON");
    let mut connect = Connect::new(identity.gateway_id);
    connect.keep_alive = timing.keep_alive.as_secs() as u16;
    connect.clean_session = true;
    connect.last_will = Some(LastWill::new(identity.topics.state(), will, QoS::AtLeastOnce, true));
    if cloud.username.is_some() || password.is_some() {
        let username = cloud.username.clone().unwrap_or_default();
        connect.login = Some(Login::new(username, password.unwrap_or_default()));
    }
    Ok(Packet::Connect(connect))
}

fn refusal(code: ConnectReturnCode, broker: &str) -> String {
    let hint = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "check username and password in [cloud]"
        }
        ConnectReturnCode::BadClientId => "does the broker accept this gateway's id?",
        ConnectReturnCode::ServiceUnavailable => "the broker is overloaded; it is tried again",
        ConnectReturnCode::RefusedProtocolVersion => "the broker must accept MQTT 3.1.1",
        ConnectReturnCode::Success => "report this",
    };
    format!("{broker} refuses the gateway ({code:?}); {hint}")
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
