//! All readers that pcscd lists, with what the config can bind them by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::sync::oneshot;

use super::binding::{PresentReader, Role, bind};
use super::lister::reader_names;
use super::usb::describe;
use super::{STACK, Trouble, establish};
use crate::config::wiring::ReaderBinding;
use crate::core::ids::ReaderId;

/// What pcscd lists, and what of it does not match the config one to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// In pcscd's order.
    pub readers: Vec<ListedReader>,
    /// One message for each binding or reader that matches twice.
    pub ambiguities: Vec<String>,
}

/// A reader that pcscd lists.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words say it")]
pub struct ListedReader {
    pub name: String,
    pub serial: Option<String>,
    pub usb_port: Option<String>,
    pub bound_to: Option<ReaderId>,
}

/// Asks pcscd for its readers, each driver for what it says of its own; one at a time.
#[derive(Debug, Default)]
pub(super) struct Surveyor {
    busy: Arc<AtomicBool>,
}

impl Surveyor {
    /// The answer comes when all drivers have answered; never, where one hangs.
    pub(super) fn survey(
        &self,
        bindings: Arc<[ReaderBinding]>,
    ) -> oneshot::Receiver<Result<Inventory, String>> {
        let (answer, inventory) = oneshot::channel();
        if self.busy.swap(true, Ordering::Relaxed) {
            let why = "a reader's driver does not answer; unplug the reader and plug it in again";
            let _ = answer.send(Err(why.into()));
            return inventory;
        }
        let busy = self.busy.clone();
        let ask = move || {
            let found = take(&bindings).map_err(|trouble| trouble.to_string());
            busy.store(false, Ordering::Relaxed);
            // Whoever asked may have given up.
            let _ = answer.send(found);
        };
        let thread = thread::Builder::new().name("pcsc-inventory".into()).stack_size(STACK);
        if thread.spawn(ask).is_err() {
            self.busy.store(false, Ordering::Relaxed);
        }
        inventory
    }
}

fn take(bindings: &[ReaderBinding]) -> Result<Inventory, Trouble> {
    let context = establish()?;
    let names = reader_names(&context)?;
    let present: Vec<PresentReader> =
        names.iter().map(|name| describe(&context, name, true)).collect();
    let assignment = bind(&present, bindings);
    let readers = present.into_iter().zip(assignment.roles).map(|(reader, role)| ListedReader {
        name: reader.name,
        serial: reader.serial,
        usb_port: reader.usb_port,
        bound_to: match role {
            Role::Bound(reader) => Some(reader),
            Role::Unbound | Role::Ambiguous => None,
        },
    });
    Ok(Inventory {
        readers: readers.collect(),
        ambiguities: assignment.ambiguities.into_iter().map(|it| it.message).collect(),
    })
}
