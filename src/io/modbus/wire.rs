//! Opens what a bus runs over, says in a technician's words why that fails, and listens old bytes
//! out of the way.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt};

use super::error::OpenError;
use crate::config::wiring::{Parity, Serial, Transport};

/// A byte stream to a bus.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin + Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + Debug> Wire for T {}

/// A stream that is being opened.
pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Wire>, OpenError>> + Send>>;

/// Opens the same stream again and again.
pub(super) type Opener = Box<dyn FnMut() -> Opening + Send>;

/// Bytes that arrive this close before the end of a quiet time prolong it.
const STILL_TALKING: Duration = Duration::from_millis(20);

/// So many bytes that already arrived are thrown away at once: a line that babbles without end
/// must not hold the bus.
const STALE_MAX: usize = 64 * 1024;

/// A gateway that lost its power is noticed by the kernel after this much silence, and this often
/// asked again.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// The opener for a configured transport.
pub(super) fn opener(transport: &Transport) -> Opener {
    match transport.clone() {
        Transport::Tcp(address) | Transport::RtuOverTcp(address) => Box::new(move || {
            let address = address.clone();
            Box::pin(async move {
                open_tcp(&address).await.map_err(|source| OpenError::of_endpoint(&source))
            })
        }),
        Transport::Rtu(serial) => Box::new(move || {
            let opened =
                open_serial(&serial).map_err(|error| OpenError::of_port(&serial.port, &error));
            Box::pin(async move { opened })
        }),
    }
}

/// Where a transport leads, for messages.
pub(super) fn endpoint(transport: &Transport) -> String {
    match transport {
        Transport::Tcp(address) => address.clone(),
        Transport::RtuOverTcp(address) => format!("{address} (rtu)"),
        Transport::Rtu(serial) => serial.port.display().to_string(),
    }
}

/// The device node of a serial port right now: a link in `/dev/serial/by-id` leads elsewhere after
/// its adapter was plugged in again.
pub(super) fn node(port: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(port).ok()
}

async fn open_tcp(address: &str) -> io::Result<Box<dyn Wire>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
    Ok(Box::new(stream))
}

fn open_serial(serial: &Serial) -> Result<Box<dyn Wire>, tokio_serial::Error> {
    let parity = match serial.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    };
    let stop_bits = if serial.stop_bits == 2 {
        tokio_serial::StopBits::Two
    } else {
        tokio_serial::StopBits::One
    };
    let stream = tokio_serial::new(serial.port.to_string_lossy(), serial.baud)
        .parity(parity)
        .stop_bits(stop_bits)
        .open_native_async()?;
    stream.clear(ClearBuffer::All)?;
    Ok(Box::new(stream))
}

/// Reads and discards for `quiet`, and on for as long as something still talks, at most twice as
/// long: what was asked by somebody before us is answered into nothing.
pub(super) async fn drain(wire: &mut dyn Wire, quiet: Duration) -> io::Result<()> {
    let start = Instant::now();
    let (mut until, limit) = (start + quiet, start + 2 * quiet);
    let mut discarded = [0; 256];
    loop {
        match timeout_at(until, wire.read(&mut discarded)).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => until = until.max(Instant::now() + STILL_TALKING).min(limit),
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// Throws away what has arrived already, without waiting. An error where the far side hung up.
pub(super) async fn discard(wire: &mut dyn Wire) -> io::Result<()> {
    let mut left = STALE_MAX;
    poll_fn(|context| {
        let mut space = [0; 256];
        while left > 0 {
            let mut stale = ReadBuf::new(&mut space);
            match Pin::new(&mut *wire).poll_read(context, &mut stale) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if stale.filled().is_empty() => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(())) => left = left.saturating_sub(stale.filled().len()),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
