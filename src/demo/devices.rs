//! The simulated technical room: relay boards, meters and machines behind real Modbus TCP.
//!
//! Machines draw power by a load profile from the moment their relay closes; meters integrate it
//! exactly, in integers, and show it as Eastron meters do (f32 of kWh and W, high word first). What
//! happens in real rooms can be made to happen: a unit falls silent, a board resets, a button is
//! pressed.

mod model;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use model::Room;
pub use model::{LoadProfile, Machine, Step};

/// A simulated technical room.
#[derive(Clone, Debug)]
pub struct Building {
    room: Arc<Mutex<Room>>,
    start: Instant,
    /// How many times faster machines go through their load profiles.
    speed: u32,
}

impl Building {
    /// An empty room in which machines go through their load profiles `speed` times as fast as real
    /// ones. Power stays what it is: a cycle of a minute uses what a minute at that power uses, so
    /// that readings are as plausible as real ones.
    pub fn new(speed: u32) -> Building {
        Building { room: Arc::default(), start: Instant::now(), speed: speed.max(1) }
    }

    /// Adds a board with this many relays (coils) and inputs.
    pub fn add_board(&self, unit: u8, relays: usize, inputs: usize) {
        self.room().add_board(unit, relays, inputs);
    }

    /// Adds a machine behind a relay, with a meter.
    pub fn add_machine(&self, mut machine: Machine) {
        for step in &mut machine.load.steps {
            step.duration /= self.speed;
        }
        self.room().add_machine(machine);
    }

    /// Serves all units on one endpoint, from a task of the current runtime.
    pub async fn serve(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        tokio::spawn(server::serve(listener, self.clone()));
        Ok(address)
    }

    /// The lifetime register of a meter; 0 for a unit that is no meter.
    pub fn total_wh(&self, meter: u8) -> i64 {
        self.room().total_mwh(meter) / 1_000
    }

    /// What flows through a meter now, in milliwatts.
    pub fn power_mw(&self, meter: u8) -> i64 {
        self.room().power_mw(meter)
    }

    /// Whether a relay is closed.
    pub fn is_closed(&self, unit: u8, relay: u16) -> bool {
        self.room().relay(unit, relay)
    }

    /// Closes or opens a relay behind the gateway's back.
    pub fn set_relay(&self, unit: u8, relay: u16, closed: bool) {
        self.room().set_relay(unit, relay, closed);
    }

    /// A board resets: all its relays open.
    pub fn reset_board(&self, unit: u8) {
        self.room().reset_board(unit);
    }

    /// Presses or releases a button, or moves a contactor.
    pub fn set_input(&self, unit: u8, input: u16, on: bool) {
        self.room().set_input(unit, input, on);
    }

    /// A unit does not answer, or does again.
    pub fn silence(&self, unit: u8, silent: bool) {
        self.room().silence(unit, silent);
    }

    /// A unit answers this much later from now on.
    pub fn delay(&self, unit: u8, delay: Duration) {
        self.room().delay(unit, delay);
    }

    /// The room at this moment.
    fn room(&self) -> MutexGuard<'_, Room> {
        let mut room = self.room.lock().expect("nobody panics while holding the room");
        room.advance(self.start.elapsed());
        room
    }
}
