//! The crash engine: the real store does its work while everything that it asks of the disk is
//! recorded; then the power goes at every moment, with every kind of loss that a disk allows, and
//! the real start-up code recovers.
//!
//! What is unsynced may be there, gone, torn at a sector, or a hole; names may be gone until their
//! folder is synced. `TAPGATE_CRASH_SEED` chooses other states, `make soak-crash` tries all.

mod bench;
mod check;
mod disk;
mod facts;
mod log;
mod powercut;
mod random;
mod scenarios;
mod seen;
mod wandering;
#[expect(unsafe_code, reason = "SQLite's VFS and libc's functions are C")]
mod wiretap;

use bench::Recorded;
use check::{Effort, Outcome, every_sync, try_states};
use disk::LeftOut;
use log::Op;

/// States that one scenario tries in `make test`.
const STATES: usize = 300;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn effort() -> Effort {
    Effort {
        more: number("TAPGATE_CRASH_MORE", 6) as usize,
        most: number("TAPGATE_CRASH_STATES", STATES as u64) as usize,
        from: 0,
        seed: number("TAPGATE_CRASH_SEED", 1),
    }
}

fn survives(name: &str, scenario: fn() -> Recorded) {
    let recorded = scenario();
    let outcome = try_states(&recorded, effort(), every_sync);
    report(name, &outcome);
    if let Some(fault) = outcome.fault {
        panic!("{name}: {fault}");
    }
}

fn report(name: &str, outcome: &Outcome) {
    assert!(outcome.tried > 0, "{name}: no state was tried");
    println!("{name}: {} requests, {} crash states", outcome.requests, outcome.tried);
}

#[test]
fn a_first_start_survives_a_power_cut() {
    survives("first start", scenarios::first_start);
}

#[test]
fn a_whole_life_survives_a_power_cut() {
    survives("life", scenarios::life);
}

#[test]
fn days_in_any_order_survive_power_cuts() {
    for seed in 0..number("TAPGATE_CRASH_DAYS", 3) {
        let seed = effort().seed + seed;
        let recorded = wandering::wander(seed, 40);
        let outcome = try_states(&recorded, effort(), every_sync);
        report(&format!("days of seed {seed}"), &outcome);
        assert_eq!(outcome.fault, None, "days of seed {seed}");
    }
}

#[test]
fn sessions_survive_a_power_cut() {
    survives("sessions", scenarios::sessions);
}

#[test]
fn acknowledgements_and_pruning_survive_a_power_cut() {
    survives("acknowledged and pruned", scenarios::acknowledged_and_pruned);
}

#[test]
fn a_list_is_the_old_or_the_new_one_after_a_power_cut() {
    survives("lists inline", scenarios::lists_inline);
}

#[test]
fn a_list_in_parts_survives_a_power_cut() {
    survives("lists in parts", scenarios::lists_in_parts);
}

#[test]
fn a_list_by_delta_survives_a_power_cut() {
    survives("lists by deltas", scenarios::lists_by_deltas);
}

#[test]
fn marks_blocks_and_replies_survive_a_power_cut() {
    survives("marks, blocks, replies", scenarios::marks_blocks_and_replies);
}

#[test]
fn a_stop_and_the_next_boot_survive_a_power_cut() {
    survives("reboot", scenarios::reboot);
}

#[test]
fn a_power_cut_right_after_another_one_loses_nothing() {
    survives("start after a power cut", scenarios::start_without_power_before);
}

#[test]
fn copying_the_log_back_survives_a_power_cut() {
    survives("log copied back", scenarios::log_copied_back);
}

#[test]
fn a_fork_survives_a_power_cut() {
    survives("fork", scenarios::fork);
}

#[test]
fn memos_survive_a_power_cut() {
    survives("memos", scenarios::memos);
}

#[test]
fn a_migration_survives_a_power_cut() {
    survives("migration", scenarios::migration);
}

#[test]
fn setting_a_damaged_ledger_aside_survives_a_power_cut() {
    survives("damaged ledger", scenarios::damaged_ledger);
}

#[test]
fn setting_a_damaged_ledger_and_its_log_aside_survives_a_power_cut() {
    survives("damaged ledger with its log", scenarios::damaged_ledger_with_log);
}

#[test]
fn setting_damaged_gateway_state_aside_survives_a_power_cut() {
    survives("damaged gateway state", scenarios::damaged_gateway_state);
}

#[test]
fn setting_a_damaged_list_aside_survives_a_power_cut() {
    survives("damaged list", scenarios::damaged_list);
}

#[test]
fn a_new_key_survives_a_power_cut() {
    survives("damaged key", scenarios::damaged_key);
}

/// What the engine must find where syncs are left out; if it does not, it proves nothing. States
/// of the last requests are enough where that many of a hundred are.
fn finds_a_loss(scenario: fn() -> Recorded, last: usize, left_out: LeftOut) {
    let recorded = scenario();
    let from = recorded.ops.len() * (100 - last) / 100;
    let outcome = try_states(&recorded, Effort { most: 1_000, from, ..effort() }, left_out);
    println!("a loss in state {}: {}", outcome.tried, outcome.fault.as_deref().unwrap_or("none"));
    assert!(outcome.fault.is_some(), "nothing was lost in {} states", outcome.tried);
}

#[test]
fn with_synchronous_normal_records_are_lost() {
    // What NORMAL leaves out: the log's sync with each commit.
    finds_a_loss(scenarios::sessions, 100, |op| matches!(op, Op::Sync { commit: true, .. }));
}

#[test]
fn without_synced_folders_files_are_lost() {
    finds_a_loss(scenarios::lists_inline, 100, |op| matches!(op, Op::SyncFolder { .. }));
}

#[test]
fn without_the_syncs_of_copying_back_records_are_lost() {
    // The log is written over while the database is not safe.
    finds_a_loss(scenarios::log_copied_back, 10, |op| matches!(op, Op::Sync { commit: false, .. }));
}

#[test]
fn without_its_sync_a_memo_is_lost() {
    finds_a_loss(scenarios::memos, 100, |op| matches!(op, Op::Sync { commit: false, .. }));
}
