//! Looks into a ledger that no daemon holds: one at rest, a frozen epoch, a copy. Changes nothing.

use std::path::Path;

use crate::io::store::error::{Fault, StoreError};
use crate::io::store::exchange::{Standing, StoredRecord};
use crate::io::store::ledger::Ledger;
use crate::io::store::verify::{Progress, Verdict, Verification};
use crate::io::store::{database, schema};

/// A ledger that is only read.
#[derive(Debug)]
pub struct Inspection(Ledger);

impl Inspection {
    /// Opens the ledger's file, which must be there. While a daemon holds it, it is locked.
    pub fn open(path: &Path) -> Result<Inspection, StoreError> {
        if let Err(error) = std::fs::metadata(path) {
            return Err(Fault::Io(error).at("open", path));
        }
        let connection = database::open_to_inspect(path, &schema::LEDGER)?;
        Ok(Inspection(Ledger::at_rest(connection, path)))
    }

    /// Head, acknowledged and floor.
    pub fn standing(&self) -> Result<Standing, StoreError> {
        self.0.standing()
    }

    /// At most `most` records from `from` on.
    pub fn records(&self, from: u64, most: usize) -> Result<Vec<StoredRecord>, StoreError> {
        self.0.records(from, most)
    }

    /// Checks the whole ledger.
    pub fn verify(&self) -> Result<Verification, StoreError> {
        let mut progress = Progress::default();
        loop {
            match self.0.verify_some(progress)? {
                Verdict::More(further) => progress = further,
                Verdict::Whole(verification) => return Ok(verification),
            }
        }
    }
}
