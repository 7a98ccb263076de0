//! A stand-in for the cloud: reference consumer of the contract, for the demo and for tests.
//!
//! It pushes allowlists, stores usage before it acknowledges it, and keeps what a portal would
//! show. On demand it behaves as clouds do on bad days: withholds acknowledgements, sends wrong
//! ones, or restores a backup.

mod usage;
mod view;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use jiff::Timestamp;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, mpsc, watch};

use crate::core::time::Wall;
use crate::protocol::cloud::{Ack, Down, Topics};

pub use usage::{Meter, Session, SessionEnd, Usage, chain};
pub use view::View;

/// Pause between two attempts to reach a broker on this machine.
const RECONNECT: Duration = Duration::from_millis(100);
/// Largest packet in either direction.
const MAX_PACKET_BYTES: usize = 4 * 1024 * 1024;
/// Requests that rumqttc takes at once; what does not fit waits in `outgoing`.
const REQUESTS: usize = 64;
/// Packets that wait while one is handled.
const PACKETS: usize = 64;

/// How the cloud reaches its gateway.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker's port on this machine.
    pub port: u16,
    /// Whose cloud it is.
    pub gateway_id: String,
    /// User and password, where the broker wants them.
    pub login: Option<(String, String)>,
    /// Seed of the Ed25519 key that signs what goes down; unsigned where `None`.
    pub signing_seed: Option<[u8; 32]>,
}

/// A running stand-in; ends when it is dropped.
#[derive(Debug)]
pub struct StandInCloud {
    inner: Arc<Inner>,
    /// Dropped to end the thread.
    _running: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    topics: Topics,
    desk: Mutex<Desk>,
    /// The view changed.
    seen: Condvar,
    /// There is something to publish.
    changed: Notify,
}

#[derive(Debug)]
struct Desk {
    view: View,
    signer: Option<Signer>,
    list: String,
    /// The retained head, as JSON.
    head: Option<Value>,
    withhold_acks: bool,
    ack_due: bool,
    last_issued: Wall,
    outgoing: Vec<Outgoing>,
}

#[derive(Clone, Debug)]
struct Outgoing {
    topic: String,
    retain: bool,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Signer {
    key: SigningKey,
    gateway_id: String,
}

impl StandInCloud {
    /// A cloud without login and signatures.
    pub fn start(broker_port: u16, gateway_id: &str) -> io::Result<StandInCloud> {
        StandInCloud::start_with(Options {
            port: broker_port,
            gateway_id: gateway_id.to_owned(),
            login: None,
            signing_seed: None,
        })
    }

    /// Starts the cloud's thread; a broker that is not there yet is waited for.
    pub fn start_with(options: Options) -> io::Result<StandInCloud> {
        let signer = options.signing_seed.map(|seed| Signer {
            key: SigningKey::from_bytes(&seed),
            gateway_id: options.gateway_id.clone(),
        });
        let inner = Arc::new(Inner {
            topics: Topics::new(&options.gateway_id),
            desk: Mutex::new(Desk {
                view: View::default(),
                signer,
                list: uuid::Uuid::new_v4().to_string(),
                head: None,
                withhold_acks: false,
                ack_due: false,
                last_issued: Wall(0),
                outgoing: Vec::new(),
            }),
            seen: Condvar::new(),
            changed: Notify::new(),
        });
        let (running, ended) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = inner.clone();
        std::thread::Builder::new()
            .name("cloud".into())
            .spawn(move || runtime.block_on(run(served, options, ended)))?;
        Ok(StandInCloud { inner, _running: running })
    }

    /// Publishes a whole list inline, retained; it is published again after a broker restart.
    pub fn push_allowlist(&self, entries: Vec<Value>, version: u64) {
        let list = self.inner.desk().list.clone();
        self.push_head(json!({
            "list": list,
            "version": version,
            "count": entries.len(),
            "digest": digest(&entries),
            "issued_at": Timestamp::now().to_string(),
            "entries": entries,
        }));
    }

    /// Publishes any head, right or wrong.
    pub fn push_head(&self, head: Value) {
        let mut desk = self.inner.desk();
        desk.head = Some(head);
        let head = desk.head_message(&self.inner.topics);
        desk.outgoing.extend(head);
        self.inner.changed.notify_one();
    }

    /// Publishes any bytes below the gateway's `down/`.
    pub fn publish_raw(&self, down: Down, payload: impl Into<Vec<u8>>, retain: bool) {
        let topic = self.inner.topics.down(down);
        self.inner.desk().outgoing.push(Outgoing { topic, retain, payload: payload.into() });
        self.inner.changed.notify_one();
    }

    /// Publishes any JSON below the gateway's `down/`, signed where the cloud has a key.
    pub fn publish_signed(&self, down: Down, content: Value, retain: bool) {
        let mut desk = self.inner.desk();
        let message = Outgoing { retain, ..desk.message(&self.inner.topics, down, content) };
        desk.outgoing.push(message);
        self.inner.changed.notify_one();
    }

    /// Stops acknowledging, or starts again with all that is stored.
    pub fn withhold_acks(&self, withhold: bool) {
        let mut desk = self.inner.desk();
        desk.withhold_acks = withhold;
        desk.ack_due = !withhold;
        self.inner.changed.notify_one();
    }

    /// Publishes an acknowledgement of a record and hash of the caller's choice, issued now.
    pub fn ack_wrongly(&self, upto: u64, hash: [u8; 32]) {
        let mut desk = self.inner.desk();
        let ack = desk.ack(&self.inner.topics, upto, hash);
        desk.outgoing.push(ack);
        self.inner.changed.notify_one();
    }

    /// Restores a backup made when `upto` was the last stored record, and says so.
    pub fn forget(&self, upto: u64) {
        let mut desk = self.inner.desk();
        desk.view.usage.forget(upto);
        desk.ack_due = true;
        self.inner.changed.notify_one();
    }

    /// What the cloud knows at this moment.
    pub fn view(&self) -> View {
        self.inner.desk().view.clone()
    }

    /// Waits until the view is as wanted; else gives it as it is after `timeout`.
    pub fn wait_for(
        &self,
        wanted: impl Fn(&View) -> bool,
        timeout: Duration,
    ) -> Result<View, Box<View>> {
        let deadline = Instant::now() + timeout;
        let mut desk = self.inner.desk();
        loop {
            if wanted(&desk.view) {
                return Ok(desk.view.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Box::new(desk.view.clone()));
            }
            let waited = self.inner.seen.wait_timeout(desk, left);
            desk = waited.expect("nothing panics while it holds the desk").0;
        }
    }
}

/// SHA-256 over the concatenated SHA-256 of each entry in canonical JSON, ascending by UID bytes.
pub fn digest(entries: &[Value]) -> String {
    let uid = |entry: &Value| hex::decode(entry["uid"].as_str().unwrap_or_default()).ok();
    let mut sorted: Vec<&Value> = entries.iter().collect();
    sorted.sort_by_key(|entry| uid(entry));
    let mut list = Sha256::new();
    for entry in sorted {
        let canonical = serde_json_canonicalizer::to_vec(entry).expect("a JSON value");
        list.update(Sha256::digest(canonical));
    }
    hex::encode(list.finalize())
}

impl Inner {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("nothing panics while it holds the desk")
    }
}

impl Desk {
    /// A message as it is published: signed where there is a key.
    fn message(&self, topics: &Topics, down: Down, mut content: Value) -> Outgoing {
        let payload = match (&self.signer, down.signed_type()) {
            (Some(signer), Some(typ)) => {
                content["gw"] = signer.gateway_id.clone().into();
                content["typ"] = typ.into();
                signer.sign(&content).into_bytes()
            }
            (Some(_), None) | (None, _) => content.to_string().into_bytes(),
        };
        Outgoing { topic: topics.down(down), retain: true, payload }
    }

    fn head_message(&self, topics: &Topics) -> Option<Outgoing> {
        Some(self.message(topics, Down::Allowlist, self.head.clone()?))
    }

    fn ack(&mut self, topics: &Topics, upto: u64, hash: [u8; 32]) -> Outgoing {
        // An older time than the last would be ignored; two in one millisecond must not be.
        let now = Wall(Timestamp::now().as_millisecond());
        let issued_at = now.max(self.last_issued + Duration::from_millis(1));
        self.last_issued = issued_at;
        let epoch = self.view.usage.epoch.clone();
        let ack = Ack { epoch, upto, hash, issued_at };
        let content = serde_json::to_value(ack).expect("an ack is plain JSON");
        self.message(topics, Down::Ack, content)
    }

    /// What is to be published next; nothing is lost where it cannot be.
    fn next(&mut self, topics: &Topics) -> Option<Outgoing> {
        if self.ack_due && !self.withhold_acks && !self.view.usage.epoch.is_empty() {
            self.ack_due = false;
            let upto = self.view.usage.held();
            let hash = self.view.usage.hash(upto);
            return Some(self.ack(topics, upto, hash));
        }
        (!self.outgoing.is_empty()).then(|| self.outgoing.remove(0))
    }
}

impl Signer {
    fn sign(&self, content: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content.to_string()));
        let signature = self.key.sign(signed.as_bytes()).to_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

async fn run(inner: Arc<Inner>, options: Options, mut ended: watch::Receiver<()>) {
    loop {
        tokio::select! {
            () = connect(&inner, &options) => {}
            _ = ended.changed() => return,
        }
        inner.desk().view.connected = false;
        inner.seen.notify_all();
        tokio::select! {
            () = tokio::time::sleep(RECONNECT) => {}
            _ = ended.changed() => return,
        }
    }
}

/// One connection, from its first packet to its last.
async fn connect(inner: &Inner, options: &Options) {
    let id = format!("cloud-of-{}", options.gateway_id);
    let mut mqtt = MqttOptions::new(id, "127.0.0.1", options.port);
    mqtt.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
    if let Some((user, password)) = &options.login {
        mqtt.set_credentials(user, password);
    }
    let (client, mut eventloop) = AsyncClient::new(mqtt, REQUESTS);
    if eventloop.poll().await.is_err() {
        return;
    }
    let (to_session, mut packets) = mpsc::channel(PACKETS);
    let pump = async move {
        while let Ok(event) = eventloop.poll().await {
            if to_session.send(event).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(pump, serve(inner, options, client, &mut packets));
}

async fn serve(
    inner: &Inner,
    options: &Options,
    client: AsyncClient,
    packets: &mut mpsc::Receiver<Event>,
) {
    let up = format!("tapgate/1/{}/up/", options.gateway_id);
    client.try_subscribe(format!("{up}#"), QoS::AtLeastOnce).ok();
    {
        let mut desk = inner.desk();
        // The broker may have forgotten what was retained.
        desk.ack_due = true;
        let head = desk.head_message(&inner.topics);
        desk.outgoing.extend(head);
    }
    loop {
        publish_due(inner, &client);
        tokio::select! {
            event = packets.recv() => match event {
                Some(Event::Incoming(Packet::Publish(publish))) => {
                    if let Some(what) = publish.topic.strip_prefix(&up) {
                        let mut desk = inner.desk();
                        desk.ack_due |= desk.view.receive(what, &publish.payload);
                    }
                    inner.seen.notify_all();
                }
                Some(Event::Incoming(Packet::SubAck(_))) => {
                    let mut desk = inner.desk();
                    desk.view.connected = true;
                    desk.view.subscriptions += 1;
                    drop(desk);
                    inner.seen.notify_all();
                }
                Some(_) => {}
                None => return,
            },
            () = inner.changed.notified() => {}
        }
    }
}

fn publish_due(inner: &Inner, client: &AsyncClient) {
    let mut desk = inner.desk();
    while let Some(out) = desk.next(&inner.topics) {
        let Outgoing { topic, retain, payload } = out.clone();
        if client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_err() {
            desk.outgoing.insert(0, out);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_neither_order_nor_spelling() {
        let a: Value =
            serde_json::from_str(r#"{"uid":"04A2B3C4","badge":"b","x":null}"#).expect("");
        let b = json!({"badge": "c", "uid": "0411"});
        let respelled: Value =
            serde_json::from_str(r#"{ "x" : null, "badge":"\u0062", "uid":"04A2B3C4" }"#)
                .expect("");

        let one = digest(&[a, b.clone()]);

        assert_eq!(one, digest(&[b.clone(), respelled]));
        assert_ne!(one, digest(&[b]));
        assert_eq!(digest(&[]), hex::encode(Sha256::digest(b"")));
    }
}
