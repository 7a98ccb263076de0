//! A TCP proxy that can go silent: it keeps every connection and moves no byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub(crate) struct Proxy {
    port: u16,
    silent: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target`.
    pub(crate) fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let silent = Arc::new(AtomicBool::new(false));
        let flag = silent.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let pair = |s: &TcpStream| s.try_clone().expect("a socket can be cloned");
                spawn_copy(pair(&client), pair(&server), flag.clone());
                spawn_copy(server, client, flag.clone());
            }
        });
        Proxy { port, silent }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }
}

/// Swallows what it reads while silent: to both ends it looks like a line that went dead.
fn spawn_copy(mut from: TcpStream, mut to: TcpStream, silent: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        if !silent.load(Ordering::SeqCst) {
            to.shutdown(Shutdown::Both).ok();
        }
    });
}
