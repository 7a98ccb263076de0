//! Decides who may use which station, what it uses, and what must be recorded about it.
//!
//! The contract of the core:
//!
//! 1. [`gateway::Gateway::handle_event`], [`handle_timeout`](gateway::Gateway::handle_timeout) and
//!    [`poll_timeout`](gateway::Gateway::poll_timeout) are all there is. `poll_timeout` also says
//!    why the daemon will wake.
//! 2. A [`event::Step`] holds records and commands: the shell commits all records in one SQLite
//!    transaction, then runs the commands in order. Power never precedes its record.
//! 3. Every command's outcome returns as an event. What is believed about a device changes only by
//!    report.
//! 4. A failed commit goes back through
//!    [`handle_commit_failure`](gateway::Gateway::handle_commit_failure): it denies what it would
//!    have started and never loses what was running.
//! 5. Nothing here performs I/O, reads a clock or draws randomness: the same events in the same
//!    order give the same steps. Ids are drawn by the shell and enter with the event.

pub mod access;
pub mod atr;
pub mod badge;
pub mod event;
pub mod explain;
mod flow;
pub mod gateway;
pub mod ids;
mod lamps;
pub mod ledger;
mod loose;
pub mod memo;
pub mod metering;
pub mod opening_hours;
pub mod orders;
mod posting;
pub mod recovery;
pub mod renderings;
mod session;
pub mod site;
mod standstill;
mod starting;
mod station;
mod suspicion;
mod switching;
pub mod tap;
mod technician;
pub mod time;
mod timers;
pub mod view;
