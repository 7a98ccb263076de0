//! LED and buzzer of a reader, through `transmit` while the card is present.
//!
//! Best effort: nobody waits for it, a late one is dropped, a failure is only logged. Each reader
//! with feedback has a thread of its own, since a blinking reader answers slowly.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use pcsc::Context;
use tracing::{debug, warn};

use super::card::{Connection, is_of_the_card};
use super::outbox::Outbox;
use super::{STACK, Token};
use crate::core::event::Feedback;
use crate::core::ids::ReaderId;

/// Feedbacks waiting for one reader: the newest tap's and the one being shown; more are dropped.
const QUEUE: usize = 2;

/// Feedback later than this would belong to nobody at the reader.
const LATEST: Duration = Duration::from_secs(1);

/// A reader model whose LED and buzzer commands are documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// ACR122U, and ACR1252U, which understands the same command.
    Acr122u,
}

impl Model {
    /// The model as the config names it.
    pub(super) fn named(name: &str) -> Option<Model> {
        match name {
            "acr122u" | "acr1252u" => Some(Model::Acr122u),
            _ => None,
        }
    }

    /// The pseudo-APDU for a feedback.
    fn command(self, feedback: Feedback) -> [u8; 9] {
        match self {
            Model::Acr122u => acr122u(feedback),
        }
    }
}

/// `FF 00 40 P2 04 T1 T2 N BZ` (ACR122U API 2.04, section 6.2). P2: bits 0 and 1 are the final red
/// and green LED, bits 2 and 3 say that they are set. T1 and T2 in 100 ms, N beeps, all under
/// 400 ms, since the reader is deaf meanwhile.
fn acr122u(feedback: Feedback) -> [u8; 9] {
    match feedback {
        Feedback::Granted | Feedback::Stopped | Feedback::YoursRunning => {
            [0xFF, 0x00, 0x40, 0x0E, 0x04, 0x01, 0x00, 0x01, 0x01]
        }
        // Both LEDs: orange.
        Feedback::SelectStation => [0xFF, 0x00, 0x40, 0x0F, 0x04, 0x01, 0x00, 0x01, 0x01],
        Feedback::Denied(_) => [0xFF, 0x00, 0x40, 0x0D, 0x04, 0x01, 0x01, 0x02, 0x01],
    }
}

/// The way to one reader's LED and buzzer.
#[derive(Debug)]
pub(super) struct Lane {
    wanted: SyncSender<(Instant, Feedback)>,
}

impl Lane {
    /// Starts the thread that shows feedback on `reader`; it ends when the lane is dropped.
    pub(super) fn start(
        reader: ReaderId,
        model: Model,
        outbox: Arc<Outbox>,
        token: Token,
    ) -> Option<Lane> {
        let (wanted, queue) = sync_channel(QUEUE);
        let name = reader.clone();
        let run = move || {
            let _token = token;
            show_all(&queue, &reader, model, &outbox);
        };
        match thread::Builder::new().name("pcsc-feedback".into()).stack_size(STACK).spawn(run) {
            Ok(_) => Some(Lane { wanted }),
            Err(error) => {
                warn!(reader = %name, %error, "no feedback: its thread did not start");
                None
            }
        }
    }

    /// Asks for a feedback; dropped where two are waiting.
    pub(super) fn show(&self, feedback: Feedback) {
        if self.wanted.try_send((Instant::now(), feedback)).is_err() {
            debug!("feedback dropped: the reader is busy with earlier ones");
        }
    }
}

fn show_all(
    queue: &Receiver<(Instant, Feedback)>,
    reader: &ReaderId,
    model: Model,
    outbox: &Outbox,
) {
    let mut context = None;
    while let Ok((asked, feedback)) = queue.recv() {
        if asked.elapsed() > LATEST {
            continue;
        }
        if let Err(error) = show(&mut context, reader, model.command(feedback), outbox) {
            debug!(%reader, %error, "feedback not shown");
            if !is_of_the_card(error) {
                context = None;
            }
        }
    }
}

fn show(
    context: &mut Option<Context>,
    reader: &ReaderId,
    command: [u8; 9],
    outbox: &Outbox,
) -> Result<(), pcsc::Error> {
    let Some(name) = outbox.name_of(reader) else { return Ok(()) };
    let context = match context {
        Some(context) => context,
        None => context.insert(Context::establish(pcsc::Scope::System)?),
    };
    let card = Connection::to_card(context, &name)?;
    let mut answer = [0; 16];
    // The answer is 90 and the LED's state, or an error that nothing could be done about.
    card.transmit(&command, &mut answer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::Denial;

    #[test]
    fn knows_the_documented_models_only() {
        assert_eq!(Model::named("acr122u"), Some(Model::Acr122u));
        assert_eq!(Model::named("acr1252u"), Some(Model::Acr122u));
        assert_eq!(Model::named("omnikey-5022"), None);
    }

    #[test]
    fn grant_and_denial_are_the_documented_bytes() {
        let hex = |feedback| hex::encode_upper(Model::Acr122u.command(feedback));
        assert_eq!(hex(Feedback::Granted), "FF00400E0401000101");
        assert_eq!(hex(Feedback::SelectStation), "FF00400F0401000101");
        assert_eq!(hex(Feedback::Denied(Denial::UnknownBadge)), "FF00400D0401010201");
    }
}
