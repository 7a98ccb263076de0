//! What happens to a store, from its first start to its worst day.

use crate::bench::{Bench, Recorded};
use crate::facts::{
    badge, badges, begins, clock_set, commissioned, ending, ends, in_parts, inline, interrupted,
    memo, replaced, slot, started, unattributed,
};

/// Nothing is there, not even the folder.
pub fn first_start() -> Recorded {
    let mut bench = Bench::new();
    bench.record_from_nothing();
    bench.open();
    bench.identify();
    bench.commit(vec![started(), commissioned(1, 1_000)]);
    bench.commit(vec![begins(1, 1, 1_000)]);
    bench.finish()
}

/// A bit of everything, from the first start on.
pub fn live(bench: &mut Bench) {
    bench.open();
    bench.identify();
    bench.commit(vec![started(), commissioned(1, 1_000), commissioned(2, 5_000)]);
    bench.apply(inline(1, &badges(0..20)));
    bench.commit(vec![begins(1, 1, 1_000)]);
    bench.out_of_service("washer-2", Some("belt"));
    bench.next_connection();
    bench.apply(in_parts(2, &badges(0..90), 30));
    bench.block(7);
    bench.keep_time();
    sessions_of(bench);
    bench.acknowledge(8);
    bench.close();
    bench.boot_as("kernel-2");
    bench.open();
    bench.commit(vec![started(), slot(3, 1_303, 1_350)]);
    bench.prune(8);
    bench.reply("c-1", r#"{"status":"done"}"#);
    bench.keep_memos(vec![memo(3, 1)]);
    bench.apply(inline(3, &badges(0..91)).with_delta(2, &[], &[badge(90, "active")]));
    // Nobody knows whether what was started in another boot still runs: it ends.
    bench.fork();
    bench.commit(vec![started()]);
}

pub fn life() -> Recorded {
    let mut bench = Bench::new();
    bench.record_from_nothing();
    live(&mut bench);
    bench.finish()
}

pub fn sessions() -> Recorded {
    let mut bench = Bench::furnished();
    bench.record();
    sessions_of(&mut bench);
    bench.finish()
}

fn sessions_of(bench: &mut Bench) {
    bench.commit(vec![slot(1, 1_000, 1_250)]);
    bench.commit(vec![unattributed(2, 5_000, 5_007), begins(2, 2, 5_007)]);
    bench.commit(vec![clock_set()]);
    bench.commit(vec![interrupted(2, 5_007)]);
    bench.commit(vec![slot(2, 5_007, 5_100), slot(1, 1_250, 1_300)]);
    bench.keep_time();
    bench.commit(vec![ending(1)]);
    bench.commit(vec![ends(1, 1, (1_000, 1_302))]);
    bench.commit(vec![replaced(2, 5_120, 3)]);
    bench.commit(vec![unattributed(1, 1_302, 1_303), begins(3, 1, 1_303)]);
}

pub fn acknowledged_and_pruned() -> Recorded {
    let mut bench = Bench::furnished();
    for n in 0..8 {
        bench.commit(vec![slot(1, 1_000 + 10 * n, 1_010 + 10 * n)]);
    }
    bench.record();
    bench.acknowledge(6);
    bench.acknowledge(4);
    bench.acknowledge(9);
    bench.prune(9);
    bench.commit(vec![slot(1, 1_080, 1_090)]);
    bench.acknowledge(13);
    bench.prune(4);
    bench.commit(vec![ends(1, 1, (1_000, 1_095))]);
    bench.finish()
}

pub fn lists_inline() -> Recorded {
    let mut bench = Bench::furnished();
    bench.block(3);
    bench.block(4);
    bench.record();
    // The list has one of the locally blocked badges blocked, the other not: one block ends.
    let mut entries = badges(0..30);
    entries[3] = badge(3, "blocked");
    bench.apply(inline(2, &entries));
    bench.apply(inline(3, &badges(0..40)));
    bench.apply(inline(4, &badges(2..41)));
    bench.finish()
}

pub fn lists_in_parts() -> Recorded {
    let mut bench = Bench::furnished();
    bench.record();
    let entries = badges(0..90);
    bench.apply(in_parts(2, &entries, 30));
    // One part changes, two stay.
    let changed = [badges(0..60), badges(61..95)].concat();
    bench.apply(in_parts(3, &changed, 30));
    bench.finish()
}

pub fn lists_by_deltas() -> Recorded {
    let mut bench = Bench::furnished();
    bench.record();
    let with_21 = badges(0..21);
    bench.apply(inline(2, &with_21).with_delta(1, &[], &[badge(20, "active")]));
    let mut blocked = badges(1..21);
    blocked[4] = badge(5, "blocked");
    bench.apply(inline(3, &blocked).with_delta(2, &[0], &[badge(5, "blocked")]));
    // The delta does not lead there; the content does.
    bench.apply(inline(4, &badges(1..22)).with_delta(3, &[1], &[]));
    bench.finish()
}

pub fn marks_blocks_and_replies() -> Recorded {
    let mut bench = Bench::furnished();
    bench.record();
    bench.block(7);
    bench.out_of_service("washer-1", Some("leaks"));
    bench.reply("c-1", r#"{"status":"accepted"}"#);
    bench.reply("c-1", r#"{"status":"done"}"#);
    bench.reply_delivered("c-1", r#"{"status":"done"}"#);
    bench.in_service("washer-2");
    bench.unblock(7);
    bench.forget_notes(1);
    bench.show_stations(&["washer-1", "washer-2"]);
    bench.next_connection();
    bench.keep_time();
    bench.block(8);
    bench.forget_notes(2);
    bench.finish()
}

/// A clean stop, and a start under the next kernel.
pub fn reboot() -> Recorded {
    let mut bench = Bench::furnished();
    bench.close();
    bench.record_closed();
    bench.boot_as("kernel-2");
    bench.open();
    bench.commit(vec![started()]);
    bench.close();
    bench.open();
    bench.commit(vec![slot(1, 1_000, 1_001)]);
    bench.finish()
}

/// The start after a power cut, with everything still in the logs.
pub fn start_without_power_before() -> Recorded {
    let mut bench = Bench::furnished().without_power();
    bench.record_closed();
    bench.open();
    bench.commit(vec![started(), slot(1, 1_000, 1_010)]);
    bench.finish()
}

/// The log is full, copied back, and begun again.
pub fn log_copied_back() -> Recorded {
    let mut bench = Bench::furnished();
    let mut register = 1_000;
    // Up to shortly before the log is full.
    while bench.log_length() < 1_050_000 {
        let slots = (0..40).map(|n| slot(1, register + n, register + n + 1)).collect();
        bench.commit(slots);
        register += 40;
    }
    bench.record();
    let before = bench.log_length();
    for n in 0..10 {
        bench.commit(
            (0..10).map(|i| slot(1, register + 10 * n + i, register + 10 * n + i + 1)).collect(),
        );
    }
    assert!(bench.log_length() < before + 200_000, "it was begun again");
    bench.finish()
}

pub fn fork() -> Recorded {
    let mut bench = Bench::furnished();
    bench.commit(vec![slot(1, 1_000, 1_250)]);
    bench.acknowledge(3);
    bench.record();
    bench.fork();
    bench.commit(vec![slot(1, 1_250, 1_300)]);
    bench.finish()
}

pub fn memos() -> Recorded {
    let mut bench = Bench::furnished();
    bench.close();
    // As an earlier version left it.
    std::fs::remove_file(bench.beside("tapgate-sessions.memo")).expect("it was there");
    bench.record_closed();
    bench.open();
    for reclosed in 1..4 {
        bench.keep_memos((0..40).map(|n| memo(n, reclosed)).collect());
    }
    bench.keep_memos(Vec::new());
    bench.finish()
}

/// Both databases have the tables of their first version.
pub fn migration() -> Recorded {
    let mut bench = Bench::furnished();
    bench.close();
    bench.sql(
        "tapgate-gateway.db",
        "DROP TABLE reply; DROP TABLE shown_station; DROP TABLE override_note;
         PRAGMA user_version = 1",
    );
    bench.sql("tapgate.db", "ALTER TABLE ledger DROP COLUMN exported; PRAGMA user_version = 1");
    bench.record_closed();
    bench.open();
    bench.block(9);
    bench.reply("c-1", r#"{"status":"done"}"#);
    bench.finish()
}

fn history_to_lose() -> Bench {
    let mut bench = Bench::furnished();
    bench.commit(vec![slot(1, 1_000, 1_250)]);
    bench.acknowledge(2);
    bench.commit(vec![unattributed(2, 5_000, 5_010)]);
    bench
}

/// A record is gone from the ledger's file.
pub fn damaged_ledger() -> Recorded {
    let mut bench = history_to_lose();
    bench.close();
    bench.sql("tapgate.db", "DELETE FROM record WHERE seq = 4");
    bench.salvaged()
}

/// The same, with the newest records and the damage still in its log.
pub fn damaged_ledger_with_log() -> Recorded {
    let bench = history_to_lose().without_power();
    bench.sql_in_log("tapgate.db", "DELETE FROM record WHERE seq = 4");
    bench.salvaged()
}

pub fn damaged_gateway_state() -> Recorded {
    let mut bench = history_to_lose();
    bench.in_service("washer-2");
    bench.close();
    bench.overwrite("tapgate-gateway.db", 0, 4_096);
    bench.overwrite("tapgate-gateway.db-wal", 0, 32);
    bench.salvaged()
}

pub fn damaged_list() -> Recorded {
    let mut bench = history_to_lose();
    bench.apply(inline(2, &badges(0..25)));
    bench.close();
    bench.damage_text("tapgate-allowlist-2.db", "b-17");
    bench.salvaged()
}

/// The key's file has lost its content.
pub fn damaged_key() -> Recorded {
    let mut bench = Bench::furnished();
    bench.identify();
    bench.close();
    std::fs::write(bench.beside("tapgate-identity.key"), b"half a k").expect("written");
    bench.record_from_nothing();
    bench.open();
    bench.identify();
    bench.finish()
}
