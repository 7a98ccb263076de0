//! Translates between the core and the world. No decisions here.

pub mod clock;
pub mod control;
pub mod feed;
pub mod identity;
pub mod journal;
mod kernel;
pub mod memory;
pub mod modbus;
pub mod mqtt;
pub mod pcsc;
pub mod store;
pub mod systemd;
