//! What happens, for whoever watches over the control socket.
//!
//! Each watcher may lag [`LAG`] events behind. Of one that is slower, a stopped terminal say, the
//! oldest events are dropped and counted, and the count is told. The daemon never waits for one.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};

use crate::core::time::Stamp;
use crate::protocol::control::Reply;
use crate::protocol::watch::{Happening, Here, WatchEvent};

/// Events that a watcher may lag behind: a minute of a busy site, some 100 KiB.
pub const LAG: usize = 256;
/// Watchers at once: each costs a connection and, if it is slow, a socket's buffer.
const WATCHERS: usize = 8;
/// The first line is written at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon's end. Watchers are cut off when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Feed {
    lines: broadcast::Sender<Line>,
    places: Arc<Semaphore>,
}

/// An event as it is written, and when it was one.
#[derive(Clone, Debug)]
struct Line {
    at: Stamp,
    text: Arc<str>,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed { lines: broadcast::Sender::new(LAG), places: Arc::new(Semaphore::new(WATCHERS)) }
    }
}

impl Feed {
    /// Whether anybody watches; where not, nothing need be told.
    pub fn is_watched(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    /// Tells everybody who watches; never waits.
    pub fn tell(&self, at: Stamp, happening: Happening) {
        if !self.is_watched() {
            return;
        }
        match line(&WatchEvent { at, happening }) {
            // Nobody watches any more.
            Ok(text) => drop(self.lines.send(Line { at, text: text.into() })),
            Err(error) => tracing::error!("an event cannot be written as JSON: {error}"),
        }
    }

    /// A place for a watcher, which holds the feed open no longer than the daemon does.
    pub(super) fn watcher(&self) -> Watcher {
        Watcher { lines: self.lines.downgrade(), places: Arc::clone(&self.places) }
    }
}

/// One who may watch.
pub(super) struct Watcher {
    lines: broadcast::WeakSender<Line>,
    places: Arc<Semaphore>,
}

impl Watcher {
    /// Writes what happens until the watcher hangs up or the daemon ends.
    pub(super) async fn follow(
        self,
        mut reading: OwnedReadHalf,
        mut writing: OwnedWriteHalf,
    ) -> std::io::Result<()> {
        let place = self.places.try_acquire_owned();
        let first = match &place {
            Ok(_) => Reply::Watching {},
            Err(_) => Reply::Error(format!("{WATCHERS} commands watch already; end one of them")),
        };
        let lines = self.lines.upgrade().map(|lines| lines.subscribe());
        let text = line(&first)?;
        tokio::time::timeout(PATIENCE, writing.write_all(text.as_bytes())).await??;
        let (Ok(_place), Some(lines)) = (place, lines) else { return Ok(()) };
        tokio::select! {
            ended = write_all(lines, &mut writing) => ended,
            // A watcher says nothing more: what can be read is its end.
            _ = reading.read_u8() => Ok(()),
        }
    }
}

async fn write_all(
    mut lines: broadcast::Receiver<Line>,
    writing: &mut OwnedWriteHalf,
) -> std::io::Result<()> {
    let mut missed = 0;
    loop {
        match lines.recv().await {
            Ok(event) => {
                if missed > 0 {
                    let count = std::mem::take(&mut missed);
                    let happening = Happening::Here(Here::EventsMissed { count });
                    let confession = line(&WatchEvent { at: event.at, happening })?;
                    writing.write_all(confession.as_bytes()).await?;
                }
                writing.write_all(event.text.as_bytes()).await?;
            }
            Err(RecvError::Lagged(count)) => missed += count,
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

fn line(content: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string(content)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, BufReader, Lines};
    use tokio::net::UnixStream;

    use super::*;
    use crate::core::time::{Uptime, Wall};

    type Screen = Lines<BufReader<UnixStream>>;

    fn stamp() -> Stamp {
        Stamp { boot: 1, uptime: Uptime(0), wall: Wall(0), synced: true }
    }

    fn tell(feed: &Feed, upto: u64) {
        feed.tell(stamp(), Happening::Here(Here::Acknowledged { upto }));
    }

    /// A watcher, and what it answers first.
    async fn watch(feed: &Feed) -> (Screen, Value) {
        let (near, far) = UnixStream::pair().expect("sockets");
        let (reading, writing) = far.into_split();
        tokio::spawn(feed.watcher().follow(reading, writing));
        let mut screen = BufReader::new(near).lines();
        let first = next(&mut screen).await;
        (screen, first)
    }

    async fn next(screen: &mut Screen) -> Value {
        let line = screen.next_line().await.expect("readable").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    #[tokio::test]
    async fn a_watcher_gets_what_happens_in_its_order() {
        let feed = Feed::default();
        tell(&feed, 1);
        let (mut screen, first) = watch(&feed).await;
        assert_eq!(first, json!({"watching": {}}));

        tell(&feed, 2);
        tell(&feed, 3);

        for upto in [2, 3] {
            let event = next(&mut screen).await;
            assert_eq!((&event["kind"], &event["upto"]), (&json!("acknowledged"), &json!(upto)));
        }
        drop(feed);
        assert_eq!(screen.next_line().await.expect("readable"), None, "the daemon is gone");
    }

    #[tokio::test]
    async fn a_terminal_that_stands_still_loses_the_oldest_and_is_told_how_many() {
        let feed = Feed::default();
        let (mut screen, _) = watch(&feed).await;
        // Far more than socket buffers and queue hold; none of it waits for the watcher.
        let told = 20_000;
        for upto in 0..told {
            tell(&feed, upto);
            if upto % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }

        let (mut seen, mut missed) = (0, 0);
        while seen + missed < told {
            let event = next(&mut screen).await;
            match event["kind"].as_str() {
                Some("events_missed") => missed += event["count"].as_u64().expect("a number"),
                Some(_) | None => {
                    assert_eq!(event["upto"], json!(seen + missed), "none is lost in silence");
                    seen += 1;
                }
            }
        }
        assert!(missed > 0 && seen >= LAG as u64, "{seen} seen, {missed} missed");
    }

    #[tokio::test]
    async fn one_watcher_too_many_is_told_so_and_a_place_is_free_again_after_one_left() {
        let feed = Feed::default();
        let mut screens = Vec::new();
        for _ in 0..WATCHERS {
            screens.push(watch(&feed).await);
        }
        let (_, refusal) = watch(&feed).await;
        assert!(refusal["error"].as_str().is_some_and(|why| why.contains("watch already")));

        screens.pop();
        while watch(&feed).await.1["error"].is_string() {
            tokio::task::yield_now().await;
        }
    }
}
