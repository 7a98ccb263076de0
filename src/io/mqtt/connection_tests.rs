use std::fs;
use std::path::PathBuf;

use tokio::net::TcpListener;

use super::*;
use crate::core::time::{Stamp, Uptime, Wall};

struct Noon;

impl Clock for Noon {
    fn stamp(&self) -> Stamp {
        Stamp { boot: 1, uptime: Uptime(1), wall: Wall(0), synced: false }
    }

    fn floor(&self) -> Wall {
        Wall(1_795_341_662_345)
    }

    fn learn(&self, _: Wall) {}
}

fn cloud() -> Cloud {
    Cloud {
        host: "broker.example".into(),
        port: 8883,
        tls: true,
        username: Some("gw".into()),
        password_file: None,
        credential: None,
        ca_file: None,
        client_cert: None,
        trusted_keys: vec![],
        report_unknown_uids: false,
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

async fn failure(cloud: &Cloud) -> Failed {
    let topics = Topics::new("gw");
    let identity = Identity { gateway_id: "gw", topics: &topics, conn: 1 };
    let timing = Timing { network: Duration::from_millis(200), ..Timing::default() };
    match Connection::open(cloud, &identity, Arc::new(Noon), &timing).await {
        Ok(_) => panic!("it came up"),
        Err(failed) => failed,
    }
}

fn error_of(cloud: &Cloud) -> String {
    run(failure(cloud)).reason
}

fn file(folder: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a temporary file");
    path
}

#[test]
fn each_tls_problem_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.pem");
    let error = error_of(&Cloud { ca_file: Some(missing.clone()), ..cloud() });
    assert!(error.starts_with("ca_file /") && error.contains("check the path"), "{error}");

    let empty = file(&folder, "empty.pem", "");
    let error = error_of(&Cloud { ca_file: Some(empty), ..cloud() });
    assert!(error.contains("holds no certificate"), "{error}");

    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let bad = file(&folder, "bad.pem", bad);
    let error = error_of(&Cloud { ca_file: Some(bad.clone()), ..cloud() });
    assert!(error.contains("cannot be used"), "{error}");

    let torn = file(&folder, "torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let error = error_of(&Cloud { ca_file: Some(torn), ..cloud() });
    assert!(error.contains("PEM"), "{error}");
}

#[test]
fn passwords_lose_one_line_end_and_are_in_no_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (content, password) in
        [("secret\n", "secret"), ("secret\r\n", "secret"), ("secret", "secret"), ("s \n\n", "s \n")]
    {
        let path = file(&folder, "pass", content);
        let cloud = Cloud { password_file: Some(path), ..cloud() };
        let read = super::password(&cloud).expect("it is there");
        assert_eq!(read.as_deref(), Some(password));
    }
    let absent = Some(folder.path().join("absent"));
    let error = error_of(&Cloud { password_file: absent, tls: false, ..cloud() });
    assert!(error.starts_with("the broker's password /"), "{error}");
}

#[test]
fn only_attempts_that_the_broker_may_have_taken_spend_a_connection_number() {
    let outcome = |tls, answer: Option<&'static [u8]>| {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("bound").port();
            let cloud = Cloud { host: "127.0.0.1".into(), port, tls, ..cloud() };
            let broker = async {
                let (mut line, _) = listener.accept().await.expect("a gateway");
                line.read_buf(&mut BytesMut::with_capacity(1_000)).await.expect("its CONNECT");
                match answer {
                    Some(bytes) => line.write_all(bytes).await.expect("it waits"),
                    None => std::future::pending().await,
                }
                // The line stays up until the gateway has judged.
                (!answer.is_some_and(<[u8]>::is_empty)).then_some(line)
            };
            let (failed, _) = tokio::join!(failure(&cloud), timeout(ANSWER / 10, broker));
            (failed.reason, failed.may_have_connected)
        })
    };
    let expect = |(reason, spent): (String, bool), words: &str, may_have_connected| {
        assert!(reason.contains(words), "{reason}");
        assert_eq!(spent, may_have_connected, "{reason}");
    };
    expect(outcome(false, Some(&[0x20, 2, 0, 5])), "check username and password", false);
    expect(outcome(false, Some(&[0x20, 2, 0, 2])), "accept this gateway's id", false);
    expect(outcome(false, Some(&[0xd0, 0])), "it answers with PingResp; check the port", true);
    let web = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Connection: close\r\n\r\n400 Bad Request";
    expect(outcome(false, Some(web)), "does not speak MQTT", true);
    expect(outcome(false, Some(b"")), "closes the connection before it answers", true);
    expect(outcome(false, None), "does not answer", true);
    expect(outcome(true, None), "does not answer", false);
    expect(outcome(true, Some(web)), "does not speak TLS", false);

    let nobody = Cloud { host: "127.0.0.1".into(), port: 1, tls: false, ..cloud() };
    let failed = run(failure(&nobody));
    expect((failed.reason, failed.may_have_connected), "cannot be reached", false);
}
