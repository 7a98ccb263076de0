//! Byte by byte, against a scripted peer: what a late, short, foreign or torn answer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::*;

const PATIENT: Duration = Duration::from_secs(5);
const BRIEF: Duration = Duration::from_millis(30);
const QUIET: Duration = Duration::from_millis(120);

/// A link whose every opening hands the far end to the test.
fn link(framing: Framing) -> (Link, mpsc::UnboundedReceiver<DuplexStream>) {
    let (far_ends, opened) = mpsc::unbounded_channel();
    let open: Opener = Box::new(move || {
        let (near, far) = duplex(1_024);
        far_ends.send(far).expect("the test keeps the receiver");
        Box::pin(async move { Ok(Box::new(near) as Box<dyn wire::Wire>) })
    });
    let pauses = Pauses { connect: PATIENT, quiet: QUIET, gap: Duration::ZERO };
    (Link::over("laundry".into(), "test".into(), framing, pauses, open), opened)
}

fn question(address: u16, count: u16, timeout: Duration) -> Question {
    let request = Request::ReadInputRegisters(address, count);
    Question { unit: 11, point: "energy_import".into(), request, timeout }
}

fn asking(request: Request<'static>) -> Question {
    Question { unit: 11, point: "relay-1".into(), request, timeout: PATIENT }
}

fn rtu_frame(body: &[u8]) -> Vec<u8> {
    let mut crc = 0xFFFF_u16;
    for byte in body {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 };
        }
    }
    [body, &crc.to_le_bytes()].concat()
}

/// An answer to a request of a Modbus/TCP frame, with its transaction number.
fn tcp_frame(request: &[u8], body: &[u8]) -> Vec<u8> {
    [&request[..4], &(body.len() as u16).to_be_bytes(), body].concat()
}

async fn request<const N: usize>(far: &mut DuplexStream) -> [u8; N] {
    let mut bytes = [0; N];
    far.read_exact(&mut bytes).await.expect("the link asks");
    bytes
}

const OLD: [u8; 7] = [11, 4, 4, 0, 1, 0, 1];
const NEW: [u8; 7] = [11, 4, 4, 0, 2, 0, 2];

fn new_words() -> Answer {
    Answer::Words(vec![2, 2])
}

#[tokio::test]
async fn tcp_never_takes_a_late_reply_for_the_next_answer() {
    let (mut link, mut opened) = link(Framing::Tcp);
    let peer = tokio::spawn(async move {
        let mut first = opened.recv().await.expect("opened");
        let old = request::<12>(&mut first).await;
        let mut second = opened.recv().await.expect("opened again");
        let new = request::<12>(&mut second).await;
        // The old connection is gone, whatever comes there.
        first.write_all(&tcp_frame(&old, &OLD)).await.expect_err("nobody listens");
        second.write_all(&tcp_frame(&new, &NEW)).await.expect("written");
        second
    });

    let silent = link.ask(&question(10, 2, BRIEF), false).await;
    assert!(matches!(silent, Err(BusError::Silent { .. })), "{silent:?}");
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn tcp_drops_a_connection_that_answers_an_older_question() {
    let (mut link, mut opened) = link(Framing::Tcp);
    let peer = tokio::spawn(async move {
        let mut far = opened.recv().await.expect("opened");
        let first = request::<12>(&mut far).await;
        far.write_all(&tcp_frame(&first, &NEW)).await.expect("written");
        request::<12>(&mut far).await;
        far.write_all(&tcp_frame(&first, &OLD)).await.expect("written");
        let mut again = opened.recv().await.expect("opened again");
        let third = request::<12>(&mut again).await;
        again.write_all(&tcp_frame(&third, &NEW)).await.expect("written");
        (far, again)
    });

    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    let stale = link.ask(&question(20, 2, PATIENT), false).await;
    assert!(matches!(stale, Err(BusError::Mismatch { .. })), "{stale:?}");
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_listens_out_a_late_reply_before_it_asks_again() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let peer = tokio::spawn(async move {
        let mut first = opened.recv().await.expect("opened");
        request::<8>(&mut first).await;
        let mut second = opened.recv().await.expect("reopened");
        // The same line: the late answer arrives after the port was reopened.
        tokio::time::sleep(QUIET / 2).await;
        second.write_all(&rtu_frame(&OLD)).await.expect("written");
        request::<8>(&mut second).await;
        second.write_all(&rtu_frame(&NEW)).await.expect("written");
        (first, second)
    });

    let silent = link.ask(&question(10, 2, BRIEF), false).await;
    assert!(matches!(silent, Err(BusError::Silent { .. })), "{silent:?}");
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_waits_out_a_line_that_still_talks_at_the_end_of_the_quiet_time() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let peer = tokio::spawn(async move {
        let mut far = opened.recv().await.expect("opened");
        let late = rtu_frame(&OLD);
        let start = Instant::now();
        for (index, byte) in late.iter().enumerate() {
            sleep_until(start + QUIET - Duration::from_millis(20) + BRIEF / 6 * index as u32).await;
            far.write_all(&[*byte]).await.expect("written");
        }
        request::<8>(&mut far).await;
        far.write_all(&rtu_frame(&NEW)).await.expect("written");
        far
    });

    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_throws_away_what_nobody_asked_for() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let (answered, after_answer) = tokio::sync::oneshot::channel();
    let (noise_sent, noise) = tokio::sync::oneshot::channel();
    let peer = tokio::spawn(async move {
        let mut far = opened.recv().await.expect("opened");
        request::<8>(&mut far).await;
        far.write_all(&rtu_frame(&NEW)).await.expect("written");
        after_answer.await.expect("the test goes on");
        far.write_all(&rtu_frame(&OLD)).await.expect("written");
        noise_sent.send(()).expect("the test waits");
        request::<8>(&mut far).await;
        far.write_all(&rtu_frame(&NEW)).await.expect("written");
        far
    });

    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    answered.send(()).expect("the peer waits");
    noise.await.expect("sent");
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

/// Asks once and answers with these bytes (RTU), or with their TCP form.
async fn answered(
    framing: Framing,
    ask: Request<'static>,
    body: &[u8],
) -> Result<Answer, BusError> {
    let (mut link, mut opened) = link(framing);
    let body = body.to_vec();
    let peer = tokio::spawn(async move {
        let mut far = opened.recv().await.expect("opened");
        let mut bytes = [0; 64];
        let length = far.read(&mut bytes).await.expect("the link asks");
        let frame = match framing {
            Framing::Rtu => rtu_frame(&body),
            Framing::Tcp => tcp_frame(&bytes[..length], &body),
        };
        far.write_all(&frame).await.expect("written");
        far
    });
    let outcome = link.ask(&asking(ask), false).await;
    drop(peer.await.expect("the peer is done"));
    outcome
}

#[tokio::test]
async fn an_answer_that_differs_in_any_field_is_no_answer() {
    let read = Request::ReadInputRegisters(72, 2);
    let coil = Request::WriteSingleCoil(5, true);
    let register = Request::WriteSingleRegister(7, 0x0100);
    let registers = Request::WriteMultipleRegisters(7, vec![1, 2].into());
    let cases: [(&str, &Request<'static>, &[u8]); 12] = [
        ("fewer registers", &read, &[11, 4, 2, 0, 1]),
        ("more registers", &read, &[11, 4, 6, 0, 1, 0, 1, 0, 1]),
        ("another unit", &read, &[12, 4, 4, 0, 1, 0, 1]),
        ("another table", &read, &[11, 3, 4, 0, 1, 0, 1]),
        ("another unit's exception", &read, &[12, 0x84, 2]),
        ("another coil", &coil, &[11, 5, 0, 6, 0xFF, 0]),
        ("the other value", &coil, &[11, 5, 0, 5, 0, 0]),
        ("no coil value", &coil, &[11, 5, 0, 5, 0x12, 0x34]),
        ("another register", &register, &[11, 6, 0, 8, 1, 0]),
        ("another value", &register, &[11, 6, 0, 7, 2, 0]),
        ("fewer written", &registers, &[11, 16, 0, 7, 0, 1]),
        ("written elsewhere", &registers, &[11, 16, 0, 9, 0, 2]),
    ];
    for framing in [Framing::Rtu, Framing::Tcp] {
        for (name, request, body) in &cases {
            let outcome = answered(framing, (*request).clone(), body).await;
            let told = matches!(&outcome, Err(BusError::Mismatch { .. }));
            assert!(told, "{framing:?} {name}: {outcome:?}");
        }
    }
    let bits = answered(Framing::Rtu, Request::ReadCoils(0, 9), &[11, 1, 1, 0xFF]).await;
    assert!(matches!(bits, Err(BusError::Mismatch { .. })), "{bits:?}");
}

#[tokio::test]
async fn right_answers_are_believed_and_cut_to_what_was_asked() {
    for framing in [Framing::Rtu, Framing::Tcp] {
        let coils = answered(framing, Request::ReadCoils(0, 3), &[11, 1, 1, 0b1111_1101]).await;
        assert_eq!(coils.expect("answered"), Answer::Bits(vec![true, false, true]));
        let coil = answered(framing, Request::WriteSingleCoil(5, true), &[11, 5, 0, 5, 0xFF, 0]);
        assert_eq!(coil.await.expect("answered"), Answer::Written);
        let many = Request::WriteMultipleRegisters(7, vec![1, 2].into());
        let many = answered(framing, many, &[11, 16, 0, 7, 0, 2]).await;
        assert_eq!(many.expect("answered"), Answer::Written);
    }
}

#[tokio::test]
async fn exceptions_are_told_apart_and_keep_the_connection() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let codes = [1_u8, 2, 3, 4, 5, 6, 8, 0x0A, 0x0B, 0x41];
    let peer = tokio::spawn(async move {
        let mut far = opened.recv().await.expect("opened");
        for code in codes {
            request::<8>(&mut far).await;
            far.write_all(&rtu_frame(&[11, 0x84, code])).await.expect("written");
        }
        (far, opened)
    });

    for expected in codes {
        let error = link.ask(&question(72, 2, PATIENT), false).await.expect_err("an exception");
        let fits = match &error {
            BusError::Refused { code, .. } => *code == expected && expected <= 3,
            BusError::Busy { code, .. } => *code == expected && matches!(expected, 5 | 6),
            BusError::TargetFailed { code, .. } => *code == expected && matches!(expected, 10 | 11),
            BusError::DeviceFailed { code, .. } => *code == expected,
            _ => false,
        };
        assert!(fits, "{expected}: {error}");
    }
    let (_far, mut opened) = peer.await.expect("the peer is done");
    assert!(opened.try_recv().is_err(), "the connection was kept");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_opened_and_used_again() {
    let (mut link, mut opened) = link(Framing::Tcp);
    let peer = tokio::spawn(async move {
        for _ in 0..2 {
            let mut far = opened.recv().await.expect("opened");
            let asked = request::<12>(&mut far).await;
            far.write_all(&tcp_frame(&asked, &NEW)).await.expect("written");
        }
        opened
    });

    for _ in 0..2 {
        assert_eq!(link.ask(&question(72, 2, PATIENT), false).await.expect("asked"), new_words());
    }
    assert_eq!(link.losses(), 1);
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn an_unreachable_bus_fails_at_once_and_is_tried_with_backoff() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let open: Opener = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    });
    let pauses = Pauses { connect: PATIENT, quiet: QUIET, gap: Duration::ZERO };
    let mut link = Link::over("laundry".into(), "nowhere".into(), Framing::Tcp, pauses, open);

    for _ in 0..5 {
        let error = link.ask(&question(72, 2, PATIENT), true).await.expect_err("refused");
        assert!(error.is_of_bus(), "{error}");
        assert!(error.to_string().contains("bus laundry cannot be opened at nowhere"), "{error}");
    }
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    let due = link.retry_at().expect("it is down");
    assert!(due > Instant::now() && due <= Instant::now() + RECONNECT.0);
}

#[test]
fn the_quiet_time_outlasts_the_slowest_device() {
    let serial = crate::config::wiring::Serial {
        port: "/dev/ttyUSB0".into(),
        baud: 2_400,
        parity: crate::config::wiring::Parity::None,
        stop_bits: 1,
    };
    let transport = Transport::Rtu(serial);
    let bus = Bus { id: "laundry".into(), transport, timeout: Duration::from_millis(200) };

    let pauses = Pauses::of(&bus, Duration::from_millis(500));

    assert!(pauses.quiet >= Duration::from_millis(500 + 1_170), "{pauses:?}");
    assert_eq!(pauses.gap.as_millis(), 16);
}
