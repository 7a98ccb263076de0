//! A TCP proxy that can go silent in either direction, or be slow: it keeps every connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) struct Proxy {
    port: u16,
    line: Arc<Line>,
}

/// What the line does to both directions of every connection.
#[derive(Default)]
struct Line {
    silent_up: AtomicBool,
    silent_down: AtomicBool,
    delay_ms: AtomicU64,
}

impl Proxy {
    /// Listens on a free port and forwards to `target`.
    pub(crate) fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let line = Arc::new(Line::default());
        let shared = line.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let pair = |s: &TcpStream| s.try_clone().expect("a socket can be cloned");
                spawn_copy(pair(&client), pair(&server), shared.clone(), |line| &line.silent_up);
                spawn_copy(server, client, shared.clone(), |line| &line.silent_down);
            }
        });
        Proxy { port, line }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.set_silent_up(silent);
        self.set_silent_down(silent);
    }

    /// From the client to the broker.
    pub(crate) fn set_silent_up(&self, silent: bool) {
        self.line.silent_up.store(silent, Ordering::SeqCst);
    }

    /// From the broker to the client.
    pub(crate) fn set_silent_down(&self, silent: bool) {
        self.line.silent_down.store(silent, Ordering::SeqCst);
    }

    /// Each piece of at most 4 KiB takes this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        let delay = delay.as_millis().try_into().expect("a short delay");
        self.line.delay_ms.store(delay, Ordering::SeqCst);
    }
}

/// Swallows what it reads while silent: to both ends it looks like a line that went dead.
fn spawn_copy(
    mut from: TcpStream,
    mut to: TcpStream,
    line: Arc<Line>,
    silent: fn(&Line) -> &AtomicBool,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            thread::sleep(Duration::from_millis(line.delay_ms.load(Ordering::SeqCst)));
            if !silent(&line).load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        if !silent(&line).load(Ordering::SeqCst) {
            to.shutdown(Shutdown::Both).ok();
        }
    });
}
