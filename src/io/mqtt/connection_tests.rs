use std::path::PathBuf;

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

fn error_of(cloud: &Cloud) -> String {
    let topics = Topics::new("gw");
    let identity = Identity { gateway_id: "gw", topics: &topics, conn: 1 };
    match prepare(cloud, &identity, Arc::new(Noon), &Timing::default()) {
        Ok(_) => "none".into(),
        Err(error) => error.to_string(),
    }
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
fn only_attempts_that_reached_the_broker_spend_a_connection_number() {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    assert!(!may_have_connected(&ConnectionError::Io(refused)));
    assert!(may_have_connected(&ConnectionError::NetworkTimeout));
    assert!(may_have_connected(&ConnectionError::MqttState(StateError::ConnectionAborted)));
}
