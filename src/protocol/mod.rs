//! Wire types only: what travels over MQTT and over the control socket.

pub mod allowlist;
pub mod badges;
pub mod cloud;
pub mod control;
pub mod field;
pub mod figures;
pub mod json;
pub mod lists;
pub mod maintenance;
pub mod watch;
