//! Talking to the card on a reader: its UID, and what else goes through `transmit`.

use std::ffi::CStr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use pcsc::{Card, Context, Disposition, Error, Protocols, ShareMode};
use tracing::debug;

use super::stop::Stop;
use crate::core::badge::Uid;

/// GET DATA for the UID, with Le = 0: as long as it is (PC/SC part 3, section 3.2.2.1.3).
const GET_UID: [u8; 5] = [0xFF, 0xCA, 0x00, 0x00, 0x00];

/// The longest answer to a short APDU: 256 bytes and the status word.
const ANSWER_MAX: usize = 258;

/// How long to wait for another program that has the card for itself.
const SHARING_PATIENCE: Duration = Duration::from_millis(1_500);

/// Pause between attempts at such a card.
const SHARING_PAUSE: Duration = Duration::from_millis(50);

/// A program that resets the card more often than this will not stop.
const RESETS_MAX: u32 = 2;

/// A connected card, left as it is when dropped: [`Card`] itself would reset it, which on a
/// contactless reader can look like another arrival.
pub(super) struct Connection(Option<Card>);

impl Connection {
    pub(super) fn new(card: Card) -> Self {
        Self(Some(card))
    }

    /// Connects to the card on a reader, next to other programs.
    pub(super) fn to_card(context: &Context, reader: &CStr) -> Result<Self, Error> {
        context.connect(reader, ShareMode::Shared, Protocols::ANY).map(Self::new)
    }
}

impl Deref for Connection {
    type Target = Card;

    fn deref(&self) -> &Card {
        self.0.as_ref().expect("a connection holds its card until it is dropped")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(card) = self.0.take()
            && let Err((_, error)) = card.disconnect(Disposition::LeaveCard)
        {
            debug!(%error, "disconnect from the card failed");
        }
    }
}

/// What came of reading a card.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CardRead {
    /// Its number.
    Uid(Uid),
    /// None, and why, without any part of a number.
    Unreadable(String),
}

/// Reads the UID of the card on a reader. The connection comes back with it: closing it is another
/// call to pcscd, which a tap need not wait for. An error is one of pcscd or the reader, not of the
/// card.
pub(super) fn read_uid(
    context: &Context,
    reader: &CStr,
    stop: &Stop,
) -> Result<(CardRead, Option<Connection>), Error> {
    let attempt = || {
        let card = Connection::to_card(context, reader)?;
        Ok((ask_for_uid(&card)?, Some(card)))
    };
    let until = Instant::now() + SHARING_PATIENCE;
    let mut resets = 0;
    let outcome = loop {
        match attempt() {
            // Another program may reset the card between two steps; once more then succeeds.
            Err(Error::ResetCard | Error::UnpoweredCard) if resets < RESETS_MAX => resets += 1,
            // Another program has the card for itself; most let go soon.
            Err(Error::SharingViolation) if Instant::now() < until && !stop.rest(SHARING_PAUSE) => {
            }
            outcome => break outcome,
        }
    };
    match outcome {
        Err(error) if is_of_the_card(error) => Ok((CardRead::Unreadable(error.to_string()), None)),
        outcome => outcome,
    }
}

fn ask_for_uid(card: &Card) -> Result<CardRead, Error> {
    let mut buffer = [0; ANSWER_MAX];
    let answer = card.transmit(&GET_UID, &mut buffer)?;
    // 6C XX: the reader wants Le to be XX.
    if let [0x6C, length] = *answer {
        let [class, instruction, p1, p2, _] = GET_UID;
        let again = [class, instruction, p1, p2, length];
        return card.transmit(&again, &mut buffer).map(uid_in);
    }
    Ok(uid_in(answer))
}

/// The UID in an answer: 4, 7 or 10 bytes and 90 00; all else is unreadable.
pub(super) fn uid_in(answer: &[u8]) -> CardRead {
    match answer {
        [uid @ .., 0x90, 0x00] => match Uid::new(uid) {
            Some(uid) => CardRead::Uid(uid),
            None => CardRead::Unreadable(format!("a number of {} bytes", uid.len())),
        },
        [.., sw1, sw2] => CardRead::Unreadable(format!("status {sw1:02X}{sw2:02X}")),
        // A card that leaves within the exchange can yield an empty answer without an error.
        _ => CardRead::Unreadable("an answer cut short".to_owned()),
    }
}

/// Whether an error says something about the card or its moment; all others, known or not, are
/// about pcscd or the reader and end the watch.
pub(super) fn is_of_the_card(error: Error) -> bool {
    matches!(
        error,
        Error::NoSmartcard
            | Error::RemovedCard
            | Error::ResetCard
            | Error::UnpoweredCard
            | Error::UnresponsiveCard
            | Error::UnsupportedCard
            | Error::UnknownCard
            | Error::CardUnsupported
            | Error::ProtoMismatch
            | Error::NotTransacted
            | Error::NotReady
            | Error::SharingViolation
            | Error::InvalidAtr
            | Error::CommDataLost
            | Error::InsufficientBuffer
            | Error::Timeout
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_numbers_of_the_three_legal_lengths_only() {
        for length in 0..=12u8 {
            let number: Vec<u8> = (1..=length).collect();
            let answer = [&number[..], &[0x90, 0x00]].concat();
            let expected = match Uid::new(&number) {
                Some(uid) => CardRead::Uid(uid),
                None => CardRead::Unreadable(format!("a number of {length} bytes")),
            };
            assert_eq!(uid_in(&answer), expected);
        }
    }

    #[test]
    fn refuses_every_status_but_9000_and_torn_answers() {
        let status = |text: &str| CardRead::Unreadable(format!("status {text}"));
        assert_eq!(uid_in(&[0x63, 0x00]), status("6300"));
        assert_eq!(uid_in(&[0x6A, 0x81]), status("6A81"));
        assert_eq!(uid_in(&[1, 2, 3, 4, 0x62, 0x82]), status("6282"));
        assert_eq!(uid_in(&[]), CardRead::Unreadable("an answer cut short".into()));
        assert_eq!(uid_in(&[0x90]), CardRead::Unreadable("an answer cut short".into()));
    }
}
