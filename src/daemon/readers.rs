//! Answers which readers there are and what they are bound to.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::wiring::{BindBy, ReaderBinding};
use crate::core::site::Selection;
use crate::daemon::event_loop::Daemon;
use crate::io::pcsc::{Inventory, ListedReader};
use crate::protocol::badges::{BoundReader, PresentReader, ReadersReport};
use crate::protocol::control::Reply;

/// Drivers that have not answered by then hang.
const SURVEY_PATIENCE: Duration = Duration::from_secs(8);

impl Daemon {
    /// Asks pcscd aside: the loop does not wait for a driver.
    pub(super) fn on_readers_request(&self, reply: oneshot::Sender<Reply>) {
        let readers = self.bound_readers();
        let survey = self.pcsc.survey();
        tokio::spawn(async move {
            let found = match tokio::time::timeout(SURVEY_PATIENCE, survey).await {
                Ok(Ok(found)) => found,
                Ok(Err(_)) | Err(_) => Err("pcscd or a reader's driver does not answer".into()),
            };
            let report = match found {
                Ok(Inventory { readers: present, ambiguities: problems }) => {
                    let present = present.into_iter().map(present_reader).collect();
                    ReadersReport { readers, present, problems }
                }
                Err(problem) => {
                    ReadersReport { readers, present: Vec::new(), problems: vec![problem] }
                }
            };
            // A command that gave up waiting is gone.
            let _ = reply.send(Reply::Readers(Box::new(report)));
        });
    }

    fn bound_readers(&self) -> Vec<BoundReader> {
        let config = &self.running.config;
        let line = |status: crate::protocol::control::ReaderStatus| {
            let site = config.site.readers.iter().find(|reader| reader.id == status.reader);
            let binding =
                config.wiring.readers.iter().find(|binding| binding.reader == status.reader);
            let selection = site.map(|reader| match reader.selection {
                Selection::Single => "single",
                Selection::FirstFree => "first-free",
                Selection::Button => "button",
            });
            BoundReader {
                binding: binding.map(binding_text).unwrap_or_default(),
                selection: selection.unwrap_or_default().into(),
                stations: self.stations_behind(&status.reader),
                reader: status.reader,
                state: status.state,
                detail: status.detail,
            }
        };
        self.watch.readers().into_iter().map(line).collect()
    }
}

/// As the config writes it.
fn binding_text(binding: &ReaderBinding) -> String {
    match &binding.by {
        BindBy::UsbPort(port) => format!("usb_port = \"{port}\""),
        BindBy::Serial(serial) => format!("serial = \"{serial}\""),
        BindBy::Name(glob) => format!("name = \"{}\"", glob.as_str()),
    }
}

fn present_reader(listed: ListedReader) -> PresentReader {
    let ListedReader { name, serial, usb_port, bound_to } = listed;
    PresentReader { name, serial, usb_port, reader: bound_to }
}
