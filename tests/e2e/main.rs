//! The real program as a site has it: `tapgate run` with a real pcscd, a real mosquitto, a Modbus
//! server of another make, and a stand-in for the cloud.

#![cfg(feature = "demo")]

mod bad_input;
mod badges;
#[path = "../support/broken.rs"]
mod broken;
mod charger;
mod cli;
mod clock;
mod cloud;
mod commands;
mod consumer;
#[path = "../support/consumer.rs"]
mod consumer_process;
mod daemon;
mod fire;
mod fork;
mod full_disk;
mod listener;
mod lists;
mod maintenance;
#[path = "../support/modbus_peer.rs"]
mod modbus_peer;
mod parts;
mod patterns;
mod people;
mod reload;
mod restart;
mod schemas;
#[path = "../support/simulated_device.rs"]
mod simulated_device;
mod site;
mod systemd;
mod tap;
#[expect(dead_code, reason = "the tests of the profiles use the rest")]
#[path = "../support/device_vectors.rs"]
mod vectors;
