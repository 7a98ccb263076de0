//! A list in parts, on disk: the bench holds none of it in memory.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tapgate::core::badge::Uid;
use tapgate::protocol::allowlist::{ListDigest, MAX_CHUNK_BYTES, MAX_PART_BYTES, entry_hash};

/// Where a list lies, and its head.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) head: String,
    pub(crate) folder: PathBuf,
    pub(crate) parts: Vec<Value>,
    pub(crate) bytes: u64,
    pub(crate) csv: PathBuf,
}

/// The nth badge's UID, of 7 bytes and ascending.
pub(crate) fn uid(n: u64) -> Uid {
    let mut bytes = [4, 0, 0, 0, 0, 0, 0];
    bytes[2..].copy_from_slice(&(n * 65_537).to_be_bytes()[3..]);
    Uid::new(&bytes).expect("7 bytes are a UID")
}

impl List {
    /// Writes parts and, for `sqlite3 .import`, the same rows as CSV.
    pub(crate) fn write(folder: &Path, badges: u64) -> anyhow::Result<List> {
        let folder = folder.join("parts");
        fs::create_dir(&folder)?;
        let csv = folder.join("rows.csv");
        let mut rows = BufWriter::new(fs::File::create(&csv)?);
        let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut digest = ListDigest::default();
        for n in 0..badges {
            let entry = canonical(n);
            digest.add(&entry_hash(entry.as_bytes()));
            if part.len() as u64 + entry.len() as u64 + 1 > MAX_PART_BYTES {
                parts.push(close(&folder, &mut part)?);
            }
            bytes += entry.len() as u64 + 1;
            part.extend_from_slice(entry.as_bytes());
            part.push(b'\n');
            let uid = uid(n);
            writeln!(rows, "{uid},{},u-{n},issued,active,\"group:laundry place:P-{n}\"", badge(n))?;
        }
        rows.flush()?;
        parts.push(close(&folder, &mut part)?);
        let head = json!({
            "list": "5f1d7a3e-4b53-4e0e-9d1c-2f0f3f0b7a11", "version": 1, "count": badges,
            "digest": digest.finish(), "issued_at": "2026-11-22T10:00:00Z", "parts": parts,
        });
        Ok(List { head: head.to_string(), folder, parts, bytes, csv })
    }
}

/// Ids that say nothing of the UIDs' order.
fn badge(n: u64) -> String {
    format!("b-{:08x}", (n as u32).wrapping_mul(2_654_435_761))
}

fn canonical(n: u64) -> String {
    format!(
        r#"{{"badge":"{}","grants":["group:laundry","place:P-{n}"],"origin":"issued","status":"active","uid":"{}","user":"u-{n}"}}"#,
        badge(n),
        uid(n)
    )
}

fn close(folder: &Path, part: &mut Vec<u8>) -> anyhow::Result<Value> {
    let name = hex::encode(Sha256::digest(&*part));
    fs::write(folder.join(&name), &*part)?;
    let named = json!({"sha256": name, "bytes": part.len()});
    part.clear();
    Ok(named)
}

/// The chunks of a part as they are published.
pub(crate) fn chunks<'a>(
    sha256: &'a str,
    content: &'a [u8],
) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let n = content.chunks(MAX_CHUNK_BYTES as usize).len();
    content.chunks(MAX_CHUNK_BYTES as usize).enumerate().map(move |(i, chunk)| {
        let data = STANDARD.encode(chunk);
        json!({"sha256": sha256, "i": i, "n": n, "data": data}).to_string().into_bytes()
    })
}
