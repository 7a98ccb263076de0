//! The cloud link against a real mosquitto: what it carries, and what it survives.

#![cfg(feature = "demo")]

mod commands;
mod consumer;
mod faults;
mod ledger;
mod link;
mod patterns;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod tls;
