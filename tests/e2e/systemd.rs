//! What systemd hears of the daemon.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::site::Site;

const PATIENCE: Duration = Duration::from_secs(30);

/// Stands in for systemd.
struct Systemd {
    socket: UnixDatagram,
}

impl Systemd {
    fn for_site(site: &mut Site) -> Systemd {
        let path = site.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a new socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time");
        site.environment.push(format!("NOTIFY_SOCKET={}", path.display()).into());
        Systemd { socket }
    }

    /// The next notification.
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a notification in time");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    /// The next notification that says this.
    fn next_with(&self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.next();
            if said.lines().any(|line| line.starts_with(wanted)) {
                return said;
            }
            assert!(Instant::now() < deadline, "no {wanted}, but {said}");
        }
    }

    /// Everything that was said and not read yet.
    fn rest(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).expect("a mode");
        let mut buffer = [0; 4096];
        let next = || match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        };
        std::iter::from_fn(next).collect()
    }
}

#[test]
fn is_ready_when_the_control_socket_answers_and_says_when_it_stops() {
    let mut site = Site::ready_to_start();
    // It does not wait for any of these.
    site.broker.kill9();
    site.pcscd.kill();
    site.peer.kill();
    let systemd = Systemd::for_site(&mut site);
    site.start();

    let ready = systemd.next_with("READY=1");

    assert!(ready.contains("STATUS=3 stations, 0 sessions, cloud not connected"), "{ready}");
    assert_eq!(site.status()["gateway"], "e2e-house-1", "READY came too early");

    let (status, _) = site.terminate();
    assert_eq!(status.code(), Some(0));
    let rest = systemd.rest();
    assert!(rest.iter().any(|said| said.lines().any(|line| line == "STOPPING=1")), "{rest:?}");
    assert!(rest.iter().all(|said| !said.contains("WATCHDOG")), "nobody asked: {rest:?}");
}

#[test]
fn keeps_status_current_and_feeds_the_watchdog() {
    let mut site = Site::ready_to_start();
    let systemd = Systemd::for_site(&mut site);
    site.prelude = "export WATCHDOG_USEC=3000000 WATCHDOG_PID=$$".into();
    site.start();
    systemd.next_with("READY=1");
    let mut fed = Vec::new();
    for _ in 0..3 {
        systemd.next_with("WATCHDOG=1");
        fed.push(Instant::now());
    }
    let limit = Duration::from_secs(3);
    assert!(fed.windows(2).all(|pair| pair[1] - pair[0] < limit), "{fed:?}");

    site.until_ready();
    systemd.next_with("STATUS=3 stations, 0 sessions, cloud connected");
    site.tap_to_start("Laundry", &crate::people::ANNA);
    systemd.next_with("STATUS=3 stations, 1 sessions, cloud connected");
}

#[test]
fn leaves_a_watchdog_of_another_process_alone() {
    let mut site = Site::ready_to_start();
    let systemd = Systemd::for_site(&mut site);
    site.prelude = "export WATCHDOG_USEC=100000 WATCHDOG_PID=1".into();
    site.start();
    systemd.next_with("READY=1");
    site.until_ready();
    assert_eq!(site.terminate().0.code(), Some(0));
    assert!(systemd.rest().iter().all(|said| !said.contains("WATCHDOG")));
}

#[test]
fn a_reload_is_told_with_its_time_and_ends_with_ready() {
    let mut site = Site::ready_to_start();
    let systemd = Systemd::for_site(&mut site);
    site.start();
    systemd.next_with("READY=1");

    let output = site.command(&["reload"]);

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let reloading = systemd.next_with("RELOADING=1");
    // systemd 253 and newer want it in the same message.
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    systemd.next_with("READY=1");
}
