//! tapgate: badge in, power on, usage settled.
//!
//! `core` decides and records, purely; `io` translates between the core and the world; `daemon`
//! joins them in one event loop. `docs/design.md` shows where a tap goes.

pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
#[cfg(feature = "demo")]
pub mod demo;
pub mod io;
pub mod protocol;
pub mod tui;
