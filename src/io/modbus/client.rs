//! tokio-modbus, between which and the wire stands a guard.
//!
//! The crate writes the request's frame and reads the answer's. It takes whatever comes for the
//! answer, though (a late one, another unit's, a short one), so it never sees the wire: the
//! listener finds the one frame that is surely the answer, and only that is handed over. What both
//! read must agree before it is believed.

use std::borrow::Cow;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_modbus::client::{Client as _, Context, rtu, tcp};
use tokio_modbus::{Request as Spoken, Response, Slave};

use super::frame::{Found, Framing, Listener};
use super::pdu::{Answer, Request};
use super::wire::Wire;

/// Longer than any frame.
const FRAME_MAX: usize = 512;

/// Asks over the wire until the listener has found what there is to find.
pub(super) async fn converse(
    framing: Framing,
    unit: u8,
    wire: &mut dyn Wire,
    listener: &mut Listener<'_>,
    request: &Request,
) -> io::Result<Found> {
    let (near, far) = duplex(FRAME_MAX);
    let mut client = client_over(framing, near, Slave(unit));
    let spoken = client.call(spoken(request));
    let (carried, response) = tokio::join!(carry(far, wire, listener), spoken);
    Ok(match (carried?, response) {
        (Found::Answer(answer), Ok(Ok(response)))
            if read(&response, request).as_ref() == Some(&answer) =>
        {
            Found::Answer(answer)
        }
        (Found::Answer(_), _) => Found::Wrong("two readings of the answer differ".into()),
        (found @ (Found::Exception(_) | Found::Wrong(_)), _) => found,
    })
}

fn client_over(framing: Framing, near: DuplexStream, slave: Slave) -> Context {
    match framing {
        Framing::Tcp => tcp::attach_slave(near, slave),
        Framing::Rtu => rtu::attach_slave(near, slave),
    }
}

/// Takes the crate's frame to the wire and the right answer's back. Dropping `far` on the way out
/// ends the crate's call.
async fn carry(
    mut far: DuplexStream,
    wire: &mut dyn Wire,
    listener: &mut Listener<'_>,
) -> io::Result<Found> {
    let mut frame = [0; FRAME_MAX];
    let length = far.read(&mut frame).await?;
    let theirs = listener.renumber(&mut frame[..length]);
    // No flush: it would wait, and the whole program with it, until the last bit is on the line.
    wire.write_all(&frame[..length]).await?;
    let mut bytes = [0; 256];
    loop {
        let count = wire.read(&mut bytes).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(found) = listener.hear(&bytes[..count]) {
            far.write_all(&listener.found_frame(theirs)).await?;
            return Ok(found);
        }
    }
}

fn spoken(request: &Request) -> Spoken<'static> {
    match request.clone() {
        Request::ReadCoils(address, count) => Spoken::ReadCoils(address, count),
        Request::ReadDiscreteInputs(address, count) => Spoken::ReadDiscreteInputs(address, count),
        Request::ReadHoldingRegisters(address, count) => {
            Spoken::ReadHoldingRegisters(address, count)
        }
        Request::ReadInputRegisters(address, count) => Spoken::ReadInputRegisters(address, count),
        Request::WriteSingleCoil(address, on) => Spoken::WriteSingleCoil(address, on),
        Request::WriteSingleRegister(address, word) => Spoken::WriteSingleRegister(address, word),
        Request::WriteMultipleRegisters(address, words) => {
            Spoken::WriteMultipleRegisters(address, Cow::Owned(words))
        }
    }
}

/// The crate's reading of an answer; `None` where it does not fit the request.
fn read(response: &Response, request: &Request) -> Option<Answer> {
    match (response, request) {
        (Response::ReadCoils(bits), Request::ReadCoils(_, count))
        | (Response::ReadDiscreteInputs(bits), Request::ReadDiscreteInputs(_, count)) => {
            Some(Answer::Bits(bits.get(..usize::from(*count))?.to_vec()))
        }
        (Response::ReadHoldingRegisters(words), Request::ReadHoldingRegisters(..))
        | (Response::ReadInputRegisters(words), Request::ReadInputRegisters(..)) => {
            Some(Answer::Words(words.clone()))
        }
        (Response::WriteSingleCoil(..), Request::WriteSingleCoil(..))
        | (Response::WriteSingleRegister(..), Request::WriteSingleRegister(..))
        | (Response::WriteMultipleRegisters(..), Request::WriteMultipleRegisters(..)) => {
            Some(Answer::Written)
        }
        _ => None,
    }
}
