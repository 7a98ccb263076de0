//! `tapgate cloud status` and `tapgate cloud test`, with and without the daemon.

use std::fs;

use serde_json::{Value, json};
use tapgate::demo::broker::{Login, PrivateBroker};
use tapgate::demo::cloud::{Options, StandInCloud};

use crate::support::authority::{Authority, Validity};
use crate::support::broker::Broker;
use crate::support::gateway::GATEWAY;
use crate::support::program::{Program, plain, tls};

/// Each step and how it went.
fn outcomes(report: &Value) -> Vec<(&str, &str)> {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().map(|step| (word(step, "step"), word(step, "outcome"))).collect()
}

fn word<'a>(step: &'a Value, member: &str) -> &'a str {
    step[member].as_str().expect("a word")
}

/// The step that failed, and what to do.
#[track_caller]
fn failure(program: &Program) -> (String, String) {
    let (report, code) = program.test();
    assert_eq!((code, &report["ok"]), (Some(1), &json!(false)), "{report:#}");
    let steps = report["steps"].as_array().expect("steps");
    let failed: Vec<_> = steps.iter().filter(|step| step["outcome"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{report:#}");
    let next = failed[0]["next"].as_str().expect("a next step");
    assert!(!next.is_empty());
    let detail = failed[0]["detail"].as_str().unwrap_or_default();
    (failed[0]["step"].as_str().unwrap_or_default().into(), format!("{detail}; {next}"))
}

#[track_caller]
fn fails_at(program: &Program, step: &str, hint: &str) {
    let (failed, why) = failure(program);
    assert_eq!(failed, step, "{why}");
    assert!(why.contains(hint), "{why}");
}

const WHOLE_WAY: [(&str, &str); 5] =
    [("credentials", "ok"), ("resolve", "ok"), ("tcp", "ok"), ("tls", "ok"), ("connect", "ok")];

#[test]
fn a_test_walks_the_whole_way_beside_the_daemon_and_without_it() {
    let authority = Authority::new();
    let (cert, key) = authority.issue("broker", &["localhost"], Validity::Now);
    let mut broker = Broker::absent();
    let port = broker.port();
    broker.restart_with(&format!(
        "user root\nlistener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}",
        authority.ca_file().display(),
        cert.display(),
        key.display()
    ));
    let mut program = Program::with_cloud(&tls(port, &authority.ca_file()));
    let rest = [("subscribe", "ok"), ("publish", "ok")];

    let (report, code) = program.test();
    let alone = [&WHOLE_WAY[..], &rest, &[("daemon", "skipped")]].concat();
    assert_eq!((outcomes(&report), code), (alone, Some(0)));

    program.start(&[]);
    program.until("it is connected", |status| status["cloud"]["connected"] == true);
    let conn = program.cloud()["cloud"]["conn"].clone();
    let (report, code) = program.test();
    let beside = [&WHOLE_WAY[..], &rest, &[("daemon", "ok")]].concat();
    assert_eq!((outcomes(&report), code), (beside, Some(0)), "{report:#}");
    let status = program.cloud();
    assert_eq!(status["cloud"]["conn"], conn, "the test does not throw the daemon out");
    assert!(status["cloud"]["connected_s"].is_u64(), "{status}");
    assert!(status["ledger"]["unacknowledged"].as_u64() > Some(0), "{status}");
}

#[test]
fn a_test_names_the_step_that_fails_and_what_to_do() {
    let authority = Authority::new();
    let program = Program::with_cloud("url = \"mqtts://broker.invalid:8883\"");
    fails_at(&program, "resolve", "DNS");

    let absent = Broker::absent();
    program.set_cloud(&plain(absent.port()));
    fails_at(&program, "tcp", "is the broker running");

    let broker = Broker::start();
    program.set_cloud(&tls(broker.port(), &authority.ca_file()));
    fails_at(&program, "tls", "TLS");

    let credential = format!("{}\nusername = \"x\"\ncredential = \"mqtt\"", plain(broker.port()));
    program.set_cloud(&credential);
    fails_at(&program, "credentials", "LoadCredential=mqtt");

    let (cert, key) = authority.issue("broker", &["elsewhere.example"], Validity::Now);
    let mut broker = Broker::absent();
    broker.restart_with(&format!(
        "user root\nlistener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
         require_certificate true",
        broker.port(),
        authority.ca_file().display(),
        cert.display(),
        key.display()
    ));
    program.set_cloud(&tls(broker.port(), &authority.ca_file()));
    fails_at(&program, "tls", "another name");
    authority.issue("broker", &["localhost"], Validity::Now);
    broker.restart_with(&fs::read_to_string(broker.config()).expect("its config"));
    fails_at(&program, "tls", "client certificate");

    fs::write(program.path("config.toml"), "[gateway]\n").expect("a file");
    assert_eq!(program.run(&["cloud", "test"]).status.code(), Some(78));
}

#[test]
fn a_test_tells_what_the_broker_does_not_allow() {
    let mut broker = Broker::absent();
    broker.restart_with("password_file /dev/null\nallow_anonymous false");
    let program = Program::with_cloud(&plain(broker.port()));
    fails_at(&program, "connect", "check");

    let acl = program.path("acl");
    let rules = |text: &str| fs::write(&acl, text).expect("a file");
    let guarded = format!("user root\nacl_file {}", acl.display());
    rules(&format!("topic read tapgate/1/{GATEWAY}/down/#\n"));
    broker.restart_with(&guarded);
    fails_at(&program, "publish", &format!("allow to write tapgate/1/{GATEWAY}/up/#"));

    rules(&format!(
        "topic readwrite tapgate/1/{GATEWAY}/up/#\ntopic read tapgate/1/{GATEWAY}/down/#\n"
    ));
    broker.restart_with(&guarded);
    let (report, code) = program.test();
    assert_eq!(code, Some(0), "{report:#}");
}

#[test]
fn a_password_comes_from_a_file_or_from_systemd() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let login = Login { username: GATEWAY, password: "pass word" };
    let cloud = Login { username: "cloud", password: "cloud" };
    let broker = PrivateBroker::start_guarded(folder.path(), &[login, cloud]).expect("mosquitto");
    let _cloud = StandInCloud::start_with(Options {
        port: broker.port(),
        gateway_id: GATEWAY.into(),
        login: Some(("cloud".into(), "cloud".into())),
        signing_seed: None,
    })
    .expect("a cloud");
    let user = format!("{}\nusername = \"{GATEWAY}\"", plain(broker.port()));
    let mut program = Program::with_cloud(&user);
    let file = program.secret("mqtt.pass", "pass word\n");
    program.set_cloud(&format!("{user}\npassword_file = \"{}\"", file.display()));
    program.start(&[]);
    let settled = |status: &Value| {
        let ledger = &status["ledger"];
        status["cloud"]["connected"] == true && ledger["head"] == ledger["acked"]
    };
    program.until("it is connected with the file", settled);

    program.secret("credentials/mqtt-password", "pass word");
    program.set_cloud(&format!("{user}\ncredential = \"mqtt-password\""));
    let directory = program.path("credentials");
    program.start(&[format!("CREDENTIALS_DIRECTORY={}", directory.display())]);
    program.until("it is connected with the credential", settled);

    program.secret("credentials/mqtt-password", "wrong");
    program.start(&[format!("CREDENTIALS_DIRECTORY={}", directory.display())]);
    program.until("it is refused", |status| {
        let error = status["cloud"]["last_error"].as_str().unwrap_or_default();
        error.contains("check username and password")
    });
    let output = program.run(&["cloud", "status"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("tapgate cloud test") && !text.contains("wrong"), "{text}");
    let log = fs::read_to_string(program.path("daemon.log")).expect("a log");
    assert!(!log.contains("pass word"), "a secret in the log");
}

#[test]
fn the_status_needs_a_daemon_and_says_so() {
    let program = Program::with_cloud("url = \"mqtt://127.0.0.1:1\"");
    let output = program.run(&["cloud", "status"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("systemctl start tapgate"));
}
