//! LED and buzzer of a reader: through `transmit` while the card is present, else as an escape
//! command to the reader itself.
//!
//! Best effort: nobody waits for it, a late one is dropped, a failure is only logged. Each reader
//! with feedback has a thread of its own, since a blinking reader answers slowly.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use pcsc::Context;
use tracing::{debug, warn};

use super::card::{Connection, is_of_the_card};
use super::direct::{DirectReader, connect_directly, escape};
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
    /// Takes one pseudo-APDU, with a card and without.
    Acr122u,
    /// Understands the same with a card, and has escape commands of its own.
    Acr1252u,
}

impl Model {
    /// The model as the config names it.
    pub(super) fn named(name: &str) -> Option<Model> {
        match name {
            "acr122u" => Some(Model::Acr122u),
            "acr1252u" => Some(Model::Acr1252u),
            _ => None,
        }
    }

    /// The pseudo-APDU for a feedback, while a card is present.
    fn command(self, feedback: Feedback) -> [u8; 9] {
        match self {
            Model::Acr122u | Model::Acr1252u => acr122u(feedback),
        }
    }

    /// The escape commands for a feedback, without a card.
    fn escapes(self, feedback: Feedback) -> Vec<Vec<u8>> {
        match self {
            Model::Acr122u => vec![acr122u(feedback).to_vec()],
            Model::Acr1252u => acr1252u(feedback).map(|escape| escape.to_vec()).into(),
        }
    }

    /// What a reader is told when it is plugged in: it must not beep for every card by itself, as
    /// a refusal would sound like a grant. The ACR1252U keeps this setting, so it stays as it is.
    fn greeting(self) -> Option<&'static [u8]> {
        match self {
            Model::Acr122u => Some(&[0xFF, 0x00, 0x52, 0x00, 0x00]),
            Model::Acr1252u => None,
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

/// `E0 00 00 29 01 LEDS` (bit 0 red, bit 1 green) and `E0 00 00 28 01 TIME` (buzzer, in 10 ms)
/// (ACM1252U-Y3 manual, ACR1281U-C1 manual).
fn acr1252u(feedback: Feedback) -> [[u8; 6]; 2] {
    let (leds, buzzer) = match feedback {
        Feedback::Granted | Feedback::Stopped | Feedback::YoursRunning => (0x02, 0x0A),
        Feedback::SelectStation => (0x03, 0x0A),
        Feedback::Denied(_) => (0x01, 0x32),
    };
    [[0xE0, 0x00, 0x00, 0x29, 0x01, leds], [0xE0, 0x00, 0x00, 0x28, 0x01, buzzer]]
}

/// What a reader is to do.
#[derive(Clone, Copy, Debug)]
enum Order {
    Greet,
    Show(Feedback),
}

/// The way to one reader's LED and buzzer.
#[derive(Debug)]
pub(super) struct Lane {
    wanted: SyncSender<(Instant, Order)>,
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
        self.order(Order::Show(feedback));
    }

    /// Tells a reader that was just found how to behave.
    pub(super) fn greet(&self) {
        self.order(Order::Greet);
    }

    fn order(&self, order: Order) {
        if self.wanted.try_send((Instant::now(), order)).is_err() {
            debug!("feedback dropped: the reader is busy with earlier ones");
        }
    }
}

fn show_all(queue: &Receiver<(Instant, Order)>, reader: &ReaderId, model: Model, outbox: &Outbox) {
    let mut context = None;
    while let Ok((asked, order)) = queue.recv() {
        if asked.elapsed() > LATEST {
            continue;
        }
        let Some(name) = outbox.name_of(reader) else { continue };
        if let Err(error) = carry_out(&mut context, &name, model, order) {
            debug!(%reader, %error, "feedback not shown");
            if !is_of_the_card(error) {
                context = None;
            }
        }
    }
}

fn carry_out(
    context: &mut Option<Context>,
    name: &CStr,
    model: Model,
    order: Order,
) -> Result<(), pcsc::Error> {
    let context = match context {
        Some(context) => context,
        None => context.insert(Context::establish(pcsc::Scope::System)?),
    };
    let directly = |commands: &[Vec<u8>]| {
        let reader = connect_directly(context, name)?;
        send_escapes(&reader, commands)
    };
    match order {
        Order::Greet => match model.greeting() {
            Some(greeting) => directly(&[greeting.to_vec()]),
            None => Ok(()),
        },
        Order::Show(feedback) => match transmit(context, name, &model.command(feedback)) {
            Ok(true) => Ok(()),
            // The card left before, or the reader takes no such command from it.
            Ok(false) => directly(&model.escapes(feedback)),
            Err(error) if is_of_the_card(error) => directly(&model.escapes(feedback)),
            Err(error) => Err(error),
        },
    }
}

/// Whether the reader took the command, with the card that lies there.
fn transmit(context: &Context, name: &CStr, command: &[u8]) -> Result<bool, pcsc::Error> {
    let card = Connection::to_card(context, name)?;
    let mut answer = [0; 16];
    // 90 and the state of the LEDs.
    Ok(matches!(card.transmit(command, &mut answer)?, [.., 0x90, _]))
}

fn send_escapes(reader: &impl DirectReader, commands: &[Vec<u8>]) -> Result<(), pcsc::Error> {
    commands.iter().try_for_each(|command| escape(reader, command).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::access::Denial;

    #[test]
    fn knows_the_documented_models_only() {
        assert_eq!(Model::named("acr122u"), Some(Model::Acr122u));
        assert_eq!(Model::named("acr1252u"), Some(Model::Acr1252u));
        assert_eq!(Model::named("omnikey-5022"), None);
    }

    #[test]
    fn grant_and_denial_are_the_documented_bytes() {
        let hex = |feedback| hex::encode_upper(Model::Acr122u.command(feedback));
        assert_eq!(hex(Feedback::Granted), "FF00400E0401000101");
        assert_eq!(hex(Feedback::SelectStation), "FF00400F0401000101");
        assert_eq!(hex(Feedback::Denied(Denial::UnknownBadge)), "FF00400D0401010201");
    }

    #[test]
    fn without_a_card_the_reader_itself_is_told() {
        use super::super::direct::recorded::Recorded;
        let sent = |model: Model, feedback| {
            let reader = Recorded::with_escape(0x4200_0001);
            send_escapes(&reader, &model.escapes(feedback)).expect("escapes are allowed");
            reader.sent().iter().map(hex::encode_upper).collect::<Vec<_>>()
        };
        assert_eq!(sent(Model::Acr122u, Feedback::Granted), ["FF00400E0401000101"]);
        assert_eq!(sent(Model::Acr1252u, Feedback::Granted), ["E00000290102", "E0000028010A"]);
        assert_eq!(
            sent(Model::Acr1252u, Feedback::Denied(Denial::Expired)),
            ["E00000290101", "E00000280132"]
        );
        assert_eq!(sent(Model::Acr1252u, Feedback::SelectStation)[0], "E00000290103");
    }

    #[test]
    fn an_acr122u_is_told_not_to_beep_by_itself() {
        let silence = [0xFF, 0x00, 0x52, 0x00, 0x00];
        assert_eq!(Model::Acr122u.greeting(), Some(&silence[..]));
        assert_eq!(Model::Acr1252u.greeting(), None, "it would keep the setting for ever");
    }
}
