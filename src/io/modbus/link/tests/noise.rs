//! Noise on an RTU line, before answers and in them.

use super::*;

/// What arrives, in pieces, before or around the right answer, and that it is found.
#[tokio::test]
async fn rtu_finds_the_answer_in_noise_echoes_and_pieces() {
    let answer = rtu_frame(&NEW);
    let echo = rtu_frame(&[11, 4, 0, 20, 0, 2]);
    let neighbour = rtu_frame(&[12, 4, 4, 0, 1, 0, 1]);
    let spoilt = [&answer[..5], &[0x55], &answer[6..]].concat();
    let cases: [(&str, Vec<Vec<u8>>); 8] = [
        ("a turn-around glitch", vec![vec![0], answer.clone()]),
        ("noise in front", vec![vec![0xFF, 11, 4, 4, 9, 0x80, 0, 11], answer.clone()]),
        ("its own echo", vec![echo, answer.clone()]),
        ("a neighbour's answer", vec![neighbour, answer.clone()]),
        ("a spoilt answer and its repetition", vec![spoilt, answer.clone()]),
        ("byte by byte", answer.iter().map(|byte| vec![*byte]).collect()),
        ("half and half", vec![answer[..4].to_vec(), answer[4..].to_vec()]),
        ("noise without an end", vec![vec![0xA5; 3_000], answer.clone()]),
    ];
    for (name, pieces) in cases {
        let (mut link, mut opened) = link(Framing::Rtu);
        let peer = tokio::spawn(async move {
            let mut far = opened_by(&mut opened).await;
            request::<8>(&mut far).await;
            for piece in pieces {
                say(&mut far, &piece).await;
                tokio::task::yield_now().await;
            }
            far
        });
        let found = link.ask(&question(20, 2, PATIENT), false).await;
        assert_eq!(found.expect(name), new_words(), "{name}");
        drop(peer.await.expect("the peer is done"));
    }
}

/// What is no answer, on RTU: told as such, and the next question is answered.
#[tokio::test]
async fn rtu_is_not_stuck_after_garbage_half_frames_or_bad_checksums() {
    let answer = rtu_frame(&OLD);
    let last = answer.len() - 1;
    let bad_sum = [&answer[..last], &[answer[last] ^ 1]].concat();
    for wrong in [bad_sum, answer[..5].to_vec(), vec![0x55; 40], vec![0; 700]] {
        let (mut link, mut opened) = link(Framing::Rtu);
        let peer = tokio::spawn(async move {
            let mut far = opened_by(&mut opened).await;
            request::<8>(&mut far).await;
            say(&mut far, &wrong).await;
            request::<8>(&mut far).await;
            say(&mut far, &rtu_frame(&NEW)).await;
            far
        });
        let told = link.ask(&question(20, 2, BRIEF), false).await;
        assert!(matches!(told, Err(BusError::Mismatch { .. })), "{told:?}");
        let again = link.ask(&question(20, 2, PATIENT), false).await;
        assert_eq!(again.expect("answered"), new_words());
        drop(peer.await.expect("the peer is done"));
    }
}
