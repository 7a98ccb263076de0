//! Reads along on the broker, beside the cloud: every message as it was, in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::people::GATEWAY;

/// Pause between two attempts to reach the broker.
const RECONNECT: Duration = Duration::from_millis(20);
/// Longest wait for a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message that a gateway published.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Below `up/`.
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// It lay there when the listener came.
    pub(crate) retained: bool,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("every payload that goes up is JSON")
    }
}

/// Ends when it is dropped.
pub(crate) struct Listener {
    heard: Arc<(Mutex<Vec<Message>>, Condvar)>,
    client: Client,
    stop: Arc<AtomicBool>,
}

impl Listener {
    pub(crate) fn start(port: u16) -> Listener {
        let id = format!("listener-{}", uuid::Uuid::new_v4().simple());
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 16);
        let listener = Listener { heard: Arc::default(), client, stop: Arc::default() };
        let (heard, client) = (listener.heard.clone(), listener.client.clone());
        let stop = listener.stop.clone();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    _ if stop.load(Ordering::Relaxed) => return,
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let filter = format!("tapgate/1/{GATEWAY}/up/#");
                        client.try_subscribe(filter, QoS::AtLeastOnce).expect("room");
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let (_, topic) = publish.topic.split_once("/up/").expect("subscribed");
                        heard.0.lock().expect("no panic").push(Message {
                            topic: topic.to_owned(),
                            payload: publish.payload.to_vec(),
                            retained: publish.retain,
                        });
                        heard.1.notify_all();
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(RECONNECT),
                }
            }
        });
        listener
    }

    /// Everything that was heard, in order.
    pub(crate) fn all(&self) -> Vec<Message> {
        self.heard.0.lock().expect("no panic").clone()
    }

    /// What was heard on one topic, in order.
    pub(crate) fn on(&self, topic: &str) -> Vec<Message> {
        let heard = self.heard.0.lock().expect("no panic");
        heard.iter().filter(|message| message.topic == topic).cloned().collect()
    }

    /// Waits until enough was heard on one topic.
    pub(crate) fn until(&self, topic: &str, wanted: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let messages = self.on(topic);
            if wanted(&messages) {
                return messages;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "in vain on {topic}, heard: {messages:?}");
            // What comes between the look and the wait is seen at the next look.
            let heard = self.heard.0.lock().expect("no panic");
            let pause = left.min(Duration::from_millis(50));
            drop(self.heard.1.wait_timeout(heard, pause).expect("no panic"));
        }
    }

    /// The states that a station went through, without repetitions.
    pub(crate) fn states_of(&self, station: &str) -> Vec<String> {
        let messages = self.on(&format!("station/{station}"));
        let mut states: Vec<String> = messages
            .iter()
            .map(|message| message.json()["state"].as_str().expect("a state").to_owned())
            .collect();
        states.dedup();
        states
    }

    /// Whether any payload has this text, whatever its case.
    pub(crate) fn has_heard(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let heard = self.heard.0.lock().expect("no panic");
        heard
            .iter()
            .any(|message| String::from_utf8_lossy(&message.payload).to_lowercase().contains(&text))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Only wakes the thread; there may be no connection.
        let _ = self.client.try_disconnect();
    }
}
