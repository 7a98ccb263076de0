//! The daemon's end of the view: asks how things stand, hands orders over.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::time::Duration;

use super::state::{Event, Order};
use crate::cli::client;
use crate::protocol::control::{Maintenance, Reply, Request, StationTest};

/// Between two questions; one costs the daemon less than a millisecond.
const PERIOD: Duration = Duration::from_millis(500);

/// Asks the daemon over and over, also while it is away. Ends with the receiver of the events.
pub(super) fn spawn(socket: PathBuf, events: SyncSender<Event>) -> io::Result<Sender<Order>> {
    let (sender, orders) = channel();
    let thread = std::thread::Builder::new().name("daemon".into());
    thread.spawn(move || run(&socket, &events, &orders))?;
    Ok(sender)
}

fn run(socket: &Path, events: &SyncSender<Event>, orders: &Receiver<Order>) {
    loop {
        let event = match client::converse(socket, &Request::Status {}) {
            Ok(Reply::Status(status)) => Event::Status(status),
            Ok(Reply::Error(why)) => Event::Gone(why),
            Ok(_) => Event::Gone("the daemon answers something else; restart it".into()),
            Err(error) => Event::Gone(absent(&error)),
        };
        if events.send(event).is_err() {
            return;
        }
        match orders.recv_timeout(PERIOD) {
            Ok(order) => {
                // A test takes seconds, in which the view goes on.
                let (socket, events) = (socket.to_owned(), events.clone());
                std::thread::spawn(move || events.send(Event::Said(carry_out(&socket, &order))));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn absent(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "the daemon does not run (systemctl start tapgate)".into()
        }
        _ => format!("the daemon does not answer: {error}"),
    }
}

fn carry_out(socket: &Path, order: &Order) -> String {
    let station = order.station().clone();
    let request = match order {
        Order::Test(_) => Request::TestStation { station },
        Order::On(_) => Request::Maintenance { order: Maintenance::SwitchOn { station } },
        Order::Off(_) => Request::Maintenance { order: Maintenance::SwitchOff { station } },
    };
    match client::converse(socket, &request) {
        Ok(Reply::StationTest(test)) => found(&test),
        Ok(
            Reply::Done(said) | Reply::Error(said) | Reply::Unknown(said) | Reply::Storage(said),
        ) => said,
        Ok(_) => "the daemon answers something else; restart it".into(),
        Err(error) => absent(&error),
    }
}

fn found(test: &StationTest) -> String {
    if test.problems.is_empty() {
        let power = test.power_mw.map_or(String::new(), |mw| format!(", {} W", mw / 1_000));
        return format!("{}: switch, feedback and meter are fine{power}", test.station);
    }
    format!("{}: {}", test.station, test.problems.join("; "))
}
