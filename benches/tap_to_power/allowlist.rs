//! 100,000 badges, put where the daemon finds them by the store's own means.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use tapgate::core::badge::Uid;
use tapgate::core::time::{Stamp, Uptime, Wall};
use tapgate::io::store::{ApplyOutcome, Opening, Store};
use tapgate::protocol::allowlist::{ListDigest, entry_hash, judge};

pub(crate) const BADGES: u32 = 100_000;

/// A moment after everything that the list says.
const NOW: Wall = Wall(1_795_341_600_000);

/// The UID of the nth badge: 4 bytes, scattered, none twice.
pub(crate) fn uid(number: u32) -> Uid {
    let [_, a, b, c] = (number % BADGES).wrapping_mul(2_654_435_761).to_be_bytes();
    Uid::new(&[0x04, a, b, c]).expect("4 bytes are a UID")
}

/// Fills the store in `folder`; returns the file that the badges are in.
pub(crate) fn fill(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("store").join("tapgate.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let opening = Opening {
            path: &path,
            boot_id: "the boot before",
            wall: NOW,
            uptime: Uptime(0),
            synced: false,
        };
        let (store, _) = Store::open(&opening)?;
        let now = Stamp { boot: 1, uptime: Uptime(1), wall: NOW, synced: false };
        let outcome = store.apply_allowlist(head()?, now).await?;
        ensure!(matches!(outcome, ApplyOutcome::Applied { .. }), "{outcome:?}");
        store.close().await;
        Ok(folder.join("store").join("tapgate-allowlist-1.db"))
    })
}

fn head() -> anyhow::Result<Vec<u8>> {
    let entry = |number: u32| {
        format!(
            r#"{{"badge":"b-{number}","uid":"{}","user":"u-{number}","origin":"issued","status":"active","grants":["group:laundry","place:P-{number}"]}}"#,
            hex::encode_upper(uid(number).as_bytes())
        )
    };
    let entries: Vec<String> = (0..BADGES).map(entry).collect();
    let mut hashes = Vec::new();
    for raw in &entries {
        let (uid, _, canonical) =
            judge(raw.as_bytes()).map_err(|bad| anyhow::anyhow!("bad {}", bad.field))?;
        hashes.push((uid.as_bytes().to_vec(), entry_hash(&canonical)));
    }
    hashes.sort();
    let mut digest = ListDigest::default();
    hashes.iter().for_each(|(_, hash)| digest.add(hash));
    let json = format!(
        r#"{{"list":"5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11","version":1,"count":{BADGES},"digest":"{}","issued_at":"2026-11-22T10:00:00Z","entries":[{}]}}"#,
        digest.finish(),
        entries.join(",")
    );
    Ok(json.into_bytes())
}
