//! Byte by byte, against a scripted peer: what a late, short, foreign or torn answer does.

mod noise;

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
    (Link::over("laundry".into(), "test".into(), framing, pauses(), open), opened)
}

fn pauses() -> Pauses {
    let none = Duration::ZERO;
    Pauses { connect: PATIENT, doubt: QUIET, gap: none, twin_gap: none, byte: none }
}

fn question(address: u16, count: u16, timeout: Duration) -> Question {
    let request = Request::ReadInputRegisters(address, count);
    Question { unit: 11, point: "energy_import".into(), request, timeout }
}

fn asking(request: Request) -> Question {
    Question { unit: 11, point: "relay-1".into(), request, timeout: BRIEF }
}

fn rtu_frame(body: &[u8]) -> Vec<u8> {
    [body, &crate::io::modbus::frame::checksum(body).to_le_bytes()].concat()
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

/// Far ends as the test's script needs them: opened once, and again where the link does so.
type Opened = mpsc::UnboundedReceiver<DuplexStream>;

/// What comes instead of the answer to a request.
type Torn = fn(&[u8]) -> Vec<u8>;

async fn opened_by(opened: &mut Opened) -> DuplexStream {
    opened.recv().await.expect("opened")
}

async fn say(far: &mut DuplexStream, bytes: &[u8]) {
    far.write_all(bytes).await.expect("written");
}

#[tokio::test]
async fn tcp_passes_over_a_late_reply_and_stays_connected() {
    let (mut link, mut opened) = link(Framing::Tcp);
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        let old = request::<12>(&mut far).await;
        let new = request::<12>(&mut far).await;
        say(&mut far, &tcp_frame(&old, &OLD)).await;
        say(&mut far, &tcp_frame(&new, &NEW)).await;
        (far, opened)
    });

    let silent = link.ask(&question(10, 2, BRIEF), false).await;
    assert!(matches!(silent, Err(BusError::Silent { .. })), "{silent:?}");
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    let (_far, mut opened) = peer.await.expect("the peer is done");
    assert!(opened.try_recv().is_err(), "the connection was kept");
}

#[tokio::test]
async fn tcp_takes_no_second_answer_of_a_gateway_that_answers_twice() {
    let (mut link, mut opened) = link(Framing::Tcp);
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        let first = request::<12>(&mut far).await;
        say(&mut far, &[tcp_frame(&first, &OLD), tcp_frame(&first, &OLD)].concat()).await;
        let second = request::<12>(&mut far).await;
        say(&mut far, &tcp_frame(&first, &OLD)).await;
        say(&mut far, &tcp_frame(&second, &NEW)).await;
        far
    });

    let old = link.ask(&question(10, 2, PATIENT), false).await.expect("answered");
    assert_eq!(old, Answer::Words(vec![1, 1]));
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn tcp_drops_a_connection_that_stops_within_a_frame_or_talks_garbage() {
    let frames: [Torn; 4] = [
        |asked| tcp_frame(asked, &NEW)[..9].to_vec(),
        |asked| tcp_frame(asked, &NEW)[..3].to_vec(),
        |_| b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
        |asked| [&asked[..4], &[0xFF, 0xFF], &NEW[..]].concat(),
    ];
    for torn in frames {
        let (mut link, mut opened) = link(Framing::Tcp);
        let peer = tokio::spawn(async move {
            let mut first = opened_by(&mut opened).await;
            let asked = request::<12>(&mut first).await;
            say(&mut first, &torn(&asked)).await;
            let mut second = opened_by(&mut opened).await;
            let asked = request::<12>(&mut second).await;
            say(&mut second, &tcp_frame(&asked, &NEW)).await;
            (first, second)
        });

        let told = link.ask(&question(20, 2, BRIEF), false).await;
        assert!(matches!(told, Err(BusError::Mismatch { .. })), "{told:?}");
        let again = link.ask(&question(20, 2, PATIENT), false).await;
        assert_eq!(again.expect("answered"), new_words());
        drop(peer.await.expect("the peer is done"));
    }
}

#[tokio::test]
async fn rtu_asks_a_silent_unit_nothing_while_it_may_still_answer() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        request::<8>(&mut far).await;
        // Much later than the time-out.
        tokio::time::sleep(QUIET * 3 / 4).await;
        say(&mut far, &rtu_frame(&OLD)).await;
        request::<8>(&mut far).await;
        say(&mut far, &rtu_frame(&NEW)).await;
        far
    });

    let silent = link.ask(&question(10, 2, BRIEF), false).await;
    assert!(matches!(silent, Err(BusError::Silent { .. })), "{silent:?}");
    assert!(link.doubtful_until(11).is_some_and(|until| until > Instant::now()));
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_asks_other_units_at_once_and_takes_no_late_reply_for_theirs() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        request::<8>(&mut far).await;
        request::<8>(&mut far).await;
        let other: Vec<u8> = [&[12], &NEW[1..]].concat();
        say(&mut far, &[rtu_frame(&OLD), rtu_frame(&other)].concat()).await;
        far
    });

    let silent = link.ask(&question(10, 2, BRIEF), false).await;
    assert!(matches!(silent, Err(BusError::Silent { .. })), "{silent:?}");
    let asked = Instant::now();
    let other = Question { unit: 12, ..question(20, 2, PATIENT) };
    assert_eq!(link.ask(&other, false).await.expect("answered"), new_words());
    assert!(asked.elapsed() < QUIET, "a dead unit costs its time-out and no more");
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_listens_to_a_line_that_somebody_else_left_before_it_asks() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        let late = rtu_frame(&OLD);
        let start = Instant::now();
        for (index, byte) in late.iter().enumerate() {
            sleep_until(start + QUIET - Duration::from_millis(20) + BRIEF / 6 * index as u32).await;
            say(&mut far, &[*byte]).await;
        }
        request::<8>(&mut far).await;
        say(&mut far, &rtu_frame(&NEW)).await;
        far
    });

    let begun = Instant::now();
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    assert!(link.asked_at() >= begun + QUIET, "listening is no latency of the device");
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_throws_away_what_nobody_asked_for() {
    let (mut link, mut opened) = link(Framing::Rtu);
    let (answered, after_answer) = tokio::sync::oneshot::channel();
    let (noise_sent, noise) = tokio::sync::oneshot::channel();
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        request::<8>(&mut far).await;
        say(&mut far, &rtu_frame(&NEW)).await;
        after_answer.await.expect("the test goes on");
        say(&mut far, &rtu_frame(&OLD)).await;
        noise_sent.send(()).expect("the test waits");
        request::<8>(&mut far).await;
        say(&mut far, &rtu_frame(&NEW)).await;
        far
    });

    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    answered.send(()).expect("the peer waits");
    noise.await.expect("sent");
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn rtu_over_tcp_waits_out_a_gateway_that_answers_twice() {
    let (mut link, mut opened) = link(Framing::Rtu);
    link.pauses.twin_gap = QUIET;
    let peer = tokio::spawn(async move {
        let mut far = opened_by(&mut opened).await;
        request::<8>(&mut far).await;
        say(&mut far, &rtu_frame(&OLD)).await;
        tokio::time::sleep(QUIET / 2).await;
        say(&mut far, &rtu_frame(&OLD)).await;
        request::<8>(&mut far).await;
        say(&mut far, &rtu_frame(&NEW)).await;
        far
    });

    let old = link.ask(&question(10, 2, PATIENT), false).await.expect("answered");
    assert_eq!(old, Answer::Words(vec![1, 1]));
    assert_eq!(link.ask(&question(20, 2, PATIENT), false).await.expect("answered"), new_words());
    drop(peer.await.expect("the peer is done"));
}

#[tokio::test]
async fn a_connection_on_which_nobody_answers_is_opened_anew() {
    for framing in [Framing::Rtu, Framing::Tcp] {
        let (mut link, mut opened) = link(framing);
        for unit in 1..=3 {
            let asked = Question { unit, ..question(20, 2, BRIEF) };
            let silent = link.ask(&asked, false).await;
            assert!(matches!(silent, Err(BusError::Silent { .. })), "{silent:?}");
        }
        let _dead = opened_by(&mut opened).await;
        assert!(opened.try_recv().is_err(), "{framing:?}: one connection until now");
        let other = Question { unit: 4, ..question(20, 2, BRIEF) };
        assert!(link.ask(&other, false).await.is_err());
        assert!(opened.try_recv().is_ok(), "{framing:?}: a new one");
    }
}

#[tokio::test]
async fn a_reset_before_and_within_an_answer_is_told_and_mended() {
    for framing in [Framing::Rtu, Framing::Tcp] {
        let (mut link, mut opened) = link(framing);
        let peer = tokio::spawn(async move {
            // Within the first answer, and (TCP asks again at once) within its repetition.
            let resets = if framing == Framing::Tcp { 2 } else { 1 };
            let mut first = opened_by(&mut opened).await;
            let mut asked = [0; 32];
            let length = first.read(&mut asked).await.expect("asked");
            let frame = match framing {
                Framing::Rtu => rtu_frame(&NEW),
                Framing::Tcp => tcp_frame(&asked[..length], &NEW),
            };
            say(&mut first, &frame[..4]).await;
            drop(first);
            for _ in 1..resets {
                drop(opened_by(&mut opened).await);
            }
            let mut last = opened_by(&mut opened).await;
            let length = last.read(&mut asked).await.expect("asked");
            let frame = match framing {
                Framing::Rtu => rtu_frame(&NEW),
                Framing::Tcp => tcp_frame(&asked[..length], &NEW),
            };
            say(&mut last, &frame).await;
            last
        });
        // A connection that is open already is used once more on TCP.
        link.open(false).await.expect("opened");
        let mut answer = link.ask(&question(20, 2, PATIENT), false).await;
        for _ in 0..3 {
            if answer.is_ok() {
                break;
            }
            assert!(matches!(answer, Err(BusError::Broken { .. })), "{answer:?}");
            answer = link.ask(&question(20, 2, PATIENT), false).await;
        }
        assert_eq!(answer.expect("answered"), new_words());
        drop(peer.await.expect("the peer is done"));
    }
}

/// Asks once and answers with these bytes (RTU), or with their TCP form.
async fn answered(framing: Framing, ask: Request, body: &[u8]) -> Result<Answer, BusError> {
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
        say(&mut far, &frame).await;
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
    let registers = Request::WriteMultipleRegisters(7, vec![1, 2]);
    let cases: [(&str, &Request, &[u8]); 12] = [
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
        let many = Request::WriteMultipleRegisters(7, vec![1, 2]);
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
        Box::pin(async { Err(OpenError::of_endpoint(&io::ErrorKind::ConnectionRefused.into())) })
    });
    let mut link = Link::over("laundry".into(), "nowhere".into(), Framing::Tcp, pauses(), open);

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
fn a_unit_is_in_doubt_for_longer_than_the_slowest_device_takes() {
    let serial = crate::config::wiring::Serial {
        port: "/dev/ttyUSB0".into(),
        baud: 2_400,
        parity: crate::config::wiring::Parity::None,
        stop_bits: 1,
    };
    let transport = Transport::Rtu(serial);
    let bus = Bus { id: "laundry".into(), transport, timeout: Duration::from_millis(200) };

    let pauses = Pauses::of(&bus, Duration::from_millis(500));

    assert!(pauses.doubt >= Duration::from_millis(500 + 1_170), "{pauses:?}");
    assert_eq!(pauses.gap.as_millis(), 16);
}
