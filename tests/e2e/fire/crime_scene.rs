//! What a killed daemon left behind: its ledger on disk, and the relays as they stand.

use std::fs;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::site::Site;

/// Stations in the order of their relays.
const STATIONS: [&str; 3] = ["washer-1", "charger-1", "dryer-1"];

/// What is known from one killing to the next.
#[derive(Default)]
pub(super) struct CrimeScene {
    pub(super) inspected: usize,
    /// How often at least one relay was closed.
    pub(super) with_power: usize,
    /// The last record that was on disk before, with its hash.
    seen: Option<(i64, Vec<u8>)>,
    stations: [Station; STATIONS.len()],
}

/// A station as its records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Station {
    session: Option<String>,
    /// Its end is on record as an intention.
    ending: bool,
    /// Its relay, at the last look.
    closed: bool,
}

impl CrimeScene {
    /// Nothing that was on disk is gone or changed; power flows for a session on record alone, and
    /// whoever had power has it, unless an end is on record.
    pub(super) fn inspect(&mut self, site: &mut Site) {
        let before = self.stations.clone();
        self.read_ledger(site);
        let mut power = false;
        for (coil, (now, before)) in (0_u8..).zip(self.stations.iter_mut().zip(&before)) {
            now.closed = site.is_closed(coil);
            power |= now.closed;
            assert!(!now.closed || now.session.is_some(), "power without a record: {now:?}");
            let same = before.session.is_some() && before.session == now.session;
            let cut = same && before.closed && !now.closed && !now.ending;
            assert!(!cut, "cut without a record: {before:?} {now:?}");
        }
        self.inspected += 1;
        self.with_power += usize::from(power);
    }

    /// A copy is read: SQLite would tidy up.
    fn read_ledger(&mut self, site: &Site) {
        let copy = site.path("scene");
        drop(fs::remove_dir_all(&copy));
        fs::create_dir(&copy).expect("a new directory");
        for suffix in ["", "-wal"] {
            let name = format!("tapgate.db{suffix}");
            drop(fs::copy(site.path("store").join(&name), copy.join(&name)));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let ledger = Connection::open_with_flags(copy.join("tapgate.db"), flags).expect("a ledger");
        let hash_at = |seq: i64| -> Option<Vec<u8>> {
            let hash = "SELECT hash FROM record WHERE seq = ?1";
            ledger.query_row(hash, [seq], |row| row.get(0)).ok()
        };
        let from = self.seen.take().map_or(0, |(seq, hash)| {
            assert_eq!(hash_at(seq), Some(hash), "record {seq} is gone or another");
            seq
        });
        let mut statement = ledger
            .prepare("SELECT seq, bytes FROM record WHERE seq > ?1 ORDER BY seq")
            .expect("a ledger");
        let rows = statement.query_map([from], |row| Ok((row.get(0)?, row.get(1)?)));
        let mut last = from;
        for row in rows.expect("records") {
            let (seq, bytes): (i64, Vec<u8>) = row.expect("a whole record");
            assert_eq!(seq, last + 1, "a gap");
            last = seq;
            self.follow(&serde_json::from_slice(&bytes).expect("a record is JSON"));
        }
        self.seen = hash_at(last).map(|hash| (last, hash));
    }

    fn follow(&mut self, record: &Value) {
        let session = record["session"].as_str().map(str::to_owned);
        let of = |session: &Option<String>, stations: &[Station]| {
            stations.iter().position(|station| station.session == *session)
        };
        match record["kind"].as_str() {
            Some("session_started") => {
                let station = STATIONS.iter().position(|name| record["station"] == **name);
                let station = &mut self.stations[station.expect("a station of the site")];
                assert_eq!(station.session, None, "two sessions at once: {record}");
                *station = Station { session, ..Station::default() };
            }
            Some("session_ending") => {
                let station = of(&session, &self.stations).expect("an open session");
                self.stations[station].ending = true;
            }
            Some("session_ended") => {
                let station = of(&session, &self.stations).expect("an open session");
                self.stations[station] = Station::default();
            }
            _ => {}
        }
    }
}
