//! The tables. A released step is never edited; a change is a new step at the end.

use crate::io::store::database::Schema;

/// Ledger, open sessions and meters.
pub(super) const LEDGER: Schema = Schema {
    application_id: 0x7467_6c65, // "tgle"
    migrations: &[LEDGER_1, LEDGER_2, LEDGER_3],
    cache_kib: 256,
};

/// What belongs to the gateway and must outlive the ledger file.
pub(super) const GATEWAY: Schema = Schema {
    application_id: 0x7467_6777, // "tggw"
    migrations: &[GATEWAY_1, GATEWAY_2, GATEWAY_3],
    cache_kib: 64,
};

/// One allowlist generation. Not migrated: another form is another file.
pub(super) const ALLOWLIST_APPLICATION_ID: i64 = 0x7467_616c; // "tgal"

/// The form of an allowlist file.
pub(super) const ALLOWLIST_VERSION: i64 = 2;

/// `floor` is the lowest sequence number that is kept, `floor_hash` the hash before it.
/// `newest` is the newest record's stamp, `allowlist` the identity of the one recorded last. In
/// `record`, `trusted_wall` is the wall time where the clock was trustworthy. `start`, `ending` and
/// all stamps are JSON.
const LEDGER_1: &str = "
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch TEXT NOT NULL,
    head INTEGER NOT NULL,
    head_hash BLOB NOT NULL CHECK (length(head_hash) = 32),
    floor INTEGER NOT NULL,
    floor_hash BLOB NOT NULL CHECK (length(floor_hash) = 32),
    acked INTEGER NOT NULL,
    ack_issued_at INTEGER,
    newest TEXT,
    allowlist TEXT
) STRICT;

CREATE TABLE record (
    seq INTEGER PRIMARY KEY,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    bytes BLOB NOT NULL,
    trusted_wall INTEGER
) STRICT;

CREATE TABLE meter (
    meter TEXT PRIMARY KEY,
    station TEXT NOT NULL,
    serial TEXT,
    first_wh INTEGER NOT NULL,
    last_wh INTEGER NOT NULL,
    last_at TEXT NOT NULL,
    sessions_wh INTEGER NOT NULL,
    open_wh INTEGER NOT NULL,
    unattributed_wh INTEGER NOT NULL,
    replaced_wh INTEGER NOT NULL,
    CHECK (last_wh - first_wh = sessions_wh + open_wh + unattributed_wh + replaced_wh)
) STRICT, WITHOUT ROWID;

CREATE TABLE open_session (
    session TEXT PRIMARY KEY,
    station TEXT NOT NULL UNIQUE,
    meter TEXT UNIQUE,
    start TEXT NOT NULL,
    uid BLOB,
    started TEXT NOT NULL,
    posted_wh INTEGER NOT NULL,
    ending TEXT,
    ending_at TEXT
) STRICT, WITHOUT ROWID;
";

/// The last record that was written to a file for good: a site without a cloud has no other
/// acknowledgement.
const LEDGER_2: &str = "ALTER TABLE ledger ADD COLUMN exported INTEGER NOT NULL DEFAULT 0;";

/// Rows that fit a small page, and no index beside them: each page that a commit touches is written
/// (decision 0024). What the indexes kept unique the books do. What was posted to an open session
/// is its meter's `open_wh`.
const LEDGER_3: &str = "
ALTER TABLE meter RENAME TO meter_before;
CREATE TABLE meter (
    id INTEGER PRIMARY KEY,
    meter TEXT NOT NULL,
    station TEXT NOT NULL,
    serial TEXT,
    first_wh INTEGER NOT NULL,
    last_wh INTEGER NOT NULL,
    last_at TEXT NOT NULL,
    sessions_wh INTEGER NOT NULL,
    open_wh INTEGER NOT NULL,
    unattributed_wh INTEGER NOT NULL,
    replaced_wh INTEGER NOT NULL,
    CHECK (last_wh - first_wh = sessions_wh + open_wh + unattributed_wh + replaced_wh)
) STRICT;
INSERT INTO meter (meter, station, serial, first_wh, last_wh, last_at, sessions_wh, open_wh,
                   unattributed_wh, replaced_wh)
    SELECT meter, station, serial, first_wh, last_wh, last_at, sessions_wh, open_wh,
           unattributed_wh, replaced_wh FROM meter_before ORDER BY meter;
DROP TABLE meter_before;

ALTER TABLE open_session RENAME TO open_session_before;
CREATE TABLE open_session (
    id INTEGER PRIMARY KEY,
    start TEXT NOT NULL,
    uid BLOB,
    started TEXT NOT NULL,
    ending TEXT,
    ending_at TEXT
) STRICT;
INSERT INTO open_session (start, uid, started, ending, ending_at)
    SELECT start, uid, started, ending, ending_at FROM open_session_before;
DROP TABLE open_session_before;
";

/// `seen` and `arrived` are stamps as JSON, times are milliseconds of UTC.
const GATEWAY_1: &str = "
CREATE TABLE gateway (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    boot INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    connections INTEGER NOT NULL,
    clock_floor INTEGER NOT NULL,
    seen TEXT,
    ledger_epoch TEXT
) STRICT;

CREATE TABLE allowlist (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    arrived TEXT
) STRICT;

CREATE TABLE out_of_service (
    station TEXT PRIMARY KEY,
    note TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE local_block (
    uid BLOB PRIMARY KEY,
    badge TEXT
) STRICT, WITHOUT ROWID;
";

/// Changes of local blocks that the ledger may not hold yet: each is noted with the change itself.
const GATEWAY_2: &str = "
CREATE TABLE override_note (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    badge TEXT,
    cleared INTEGER NOT NULL,
    by TEXT NOT NULL
) STRICT;
";

/// `command` and `reply` are JSON. The numbers tell which came first.
const GATEWAY_3: &str = "
CREATE TABLE reply (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    command TEXT NOT NULL,
    reply TEXT NOT NULL,
    delivered INTEGER NOT NULL
) STRICT;

CREATE TABLE shown_station (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    station TEXT NOT NULL UNIQUE
) STRICT;
";

/// Entries are kept as the canonical bytes that the digest covers, in order of their UIDs. A key of
/// `badge` is the first bits of the badge's hash and then its entry's ordinal.
pub(super) const ALLOWLIST: &str = "
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    list TEXT NOT NULL,
    version INTEGER NOT NULL,
    digest TEXT NOT NULL,
    count INTEGER NOT NULL,
    issued_at INTEGER NOT NULL
) STRICT;

CREATE TABLE part (
    position INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL
) STRICT;

CREATE TABLE entry (
    ordinal INTEGER PRIMARY KEY,
    canonical BLOB NOT NULL
) STRICT;

CREATE TABLE uid (
    uid BLOB PRIMARY KEY,
    ordinal INTEGER NOT NULL,
    usable INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE badge (
    key INTEGER PRIMARY KEY
) STRICT;
";
