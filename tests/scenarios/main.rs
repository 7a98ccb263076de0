//! What happens to people, told as tests: the real core under a small virtual building.
//!
//! After every step [`world::World`] checks what nothing may break: power never precedes its
//! record, a station has one session at most, every watt-hour of a register is in exactly one
//! account, nothing is posted to a session that has ended, and the public state is told exactly
//! when it changes.

mod access;
mod awkward;
mod clock;
mod decision;
mod faults;
mod finishing;
mod lamps;
mod metering;
mod orders;
mod outages;
mod power_cuts;
mod selection;
mod starting;
mod storage;
mod technician;
mod world;
