//! Opens what a bus runs over, and keeps old bytes out of new answers.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt};

use crate::config::wiring::{Parity, Serial, Transport};

/// A byte stream to a bus.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin + Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + Debug> Wire for T {}

/// A stream that is being opened.
pub(super) type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>>;

/// Opens the same stream again and again.
pub(super) type Opener = Box<dyn FnMut() -> Opening + Send>;

/// Bytes that arrive this close before the end of a quiet time prolong it.
const STILL_TALKING: Duration = Duration::from_millis(20);

/// The opener for a configured transport.
pub(super) fn opener(transport: &Transport) -> Opener {
    match transport.clone() {
        Transport::Tcp(address) | Transport::RtuOverTcp(address) => Box::new(move || {
            let address = address.clone();
            Box::pin(async move { open_tcp(&address).await })
        }),
        Transport::Rtu(serial) => Box::new(move || {
            let opened = open_serial(&serial);
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

async fn open_tcp(address: &str) -> io::Result<Box<dyn Wire>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn open_serial(serial: &Serial) -> io::Result<Box<dyn Wire>> {
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
/// long: an answer that comes too late ends here instead of as the next request's (RTU frames carry
/// nothing that tells whose answer they are; facts: a reopened port alone is not enough).
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

/// Throws away whatever has arrived before each request is written.
#[derive(Debug)]
pub(super) struct Draining<W>(pub(super) W);

impl<W: AsyncRead + Unpin> AsyncRead for Draining<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<W: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Draining<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut space = [0; 256];
        let mut stale = ReadBuf::new(&mut space);
        while let Poll::Ready(read) = Pin::new(&mut self.0).poll_read(cx, &mut stale) {
            read?;
            if stale.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            stale.clear();
        }
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
