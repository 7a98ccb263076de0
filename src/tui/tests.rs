//! Screens as a technician sees them, and what keys do. `TAPGATE_BLESS=1` writes the screens anew.

use std::path::PathBuf;

use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::state::{Action, Event, Order, Page, State};
use super::view;
use crate::protocol::control::Status;

/// A site of six stations with everything that can be shown.
fn site() -> Box<Status> {
    let station = |id: &str, kind: &str, state: &str| {
        json!({"station": id, "state": state, "since": "2026-11-22T09:00:00.000Z", "kind": kind,
               "label": format!("Label of {id}"), "power_mw": null, "register_wh": null,
               "session": null})
    };
    let mut stations = vec![
        station("washer-1", "washer", "in_use"),
        station("washer-2", "washer", "available"),
        station("dryer-1", "dryer", "faulted"),
        station("dryer-2", "dryer", "out_of_service"),
        station("charger-1", "charger", "in_use"),
        station("charger-2", "charger", "available"),
    ];
    for (at, user, wh) in [(0, "u-1042", 612), (4, "u-7", 11_250)] {
        stations[at]["power_mw"] = json!(2_010_400 * (at as i64 + 1));
        stations[at]["register_wh"] = json!(1_204_988 + wh);
        stations[at]["session"] = json!({
            "session": "0190d2a0-7b7c-7c6e-8e2a-000000000001", "user": user,
            "badge": format!("b-{user}"), "started": "2026-11-22T09:30:00.000Z",
            "duration_s": 1862, "energy_wh": wh, "phase": "running",
            "authorised_by": "allowlist"});
    }
    stations[2]["fault"] = json!("the switch does not open");
    stations[3]["note"] = json!("drum is stuck, mechanic on Tuesday");
    let figures = |requests: u64, errors: u64, rate: u64, busy: u64| {
        json!({"requests": requests, "errors": errors, "error_rate_permille": rate,
               "latency_p50_ms": 23, "latency_p99_ms": 91, "utilisation_percent": busy})
    };
    let unit = |unit: u8, device: &str, state: &str, figures: serde_json::Value| {
        let mut unit = json!({"bus": "rtu-1", "unit": unit, "device": device, "state": state,
                              "latency_ms": 22, "last_error": null});
        let members = figures.as_object().expect("an object").clone();
        unit.as_object_mut().expect("an object").extend(members);
        unit
    };
    let mut devices = vec![
        unit(1, "relays", "ok", figures(4_012, 0, 0, 9)),
        unit(11, "meter-1", "ok", figures(4_000, 3, 12, 12)),
        unit(12, "meter-2", "down", figures(310, 300, 1_000, 3)),
    ];
    devices[2]["last_error"] = json!("bus rtu-1 unit 12: no answer; check power and wiring");
    let mut bus = json!({"bus": "rtu-1", "error": null});
    bus.as_object_mut()
        .expect("an object")
        .extend(figures(8_322, 303, 21, 24).as_object().expect("an object").clone());
    let status = json!({
        "gateway": "ch-lausanne-012-a", "version": "1.2.0", "boot": 31, "running_s": 11_520,
        "clock": "synced", "stations": stations, "readers": [], "buses": [bus],
        "devices": devices,
        "cloud": {"connected": true, "broker": "broker:8883", "conn": 7, "last_error": null,
                  "events_waiting": 2, "events_dropped": 0, "connected_s": 60, "last_ack_s": 3,
                  "clone_suspected_s": null, "clock_floor": "2026-11-22T09:00:00.000Z"},
        "allowlist": {"list": "l", "version": 42, "digest": "d", "count": 118},
        "ledger": {"epoch": "e", "head": 1042, "acked": 1040, "unacknowledged": 2, "unsaved": 0},
        "taps": [
            {"tapped": "2026-11-22T10:00:59.000Z", "reader": "laundry", "decision": "denied",
             "reason": "badge_blocked", "station": null, "user": "u-9", "badge": "b-9"},
            {"tapped": "2026-11-22T10:00:02.000Z", "reader": "laundry", "decision": "granted",
             "station": "washer-1", "user": "u-1042", "badge": "b-u-1042"},
        ],
        "alarms": ["device meter-2: no answer; check power and wiring"],
    });
    serde_json::from_value(status).expect("a status")
}

fn state() -> State {
    let mut state = State::new(TimeZone::UTC, false);
    state.on(Event::Status(site()));
    state
}

fn press(state: &mut State, keys: &str) -> Action {
    let mut last = Action::None;
    for letter in keys.chars() {
        let code = match letter {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            other => KeyCode::Char(other),
        };
        last = state.on(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }
    last
}

fn drawn(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| view::draw(frame, state)).expect("drawn");
    let buffer = terminal.backend().buffer().clone();
    let rows = buffer.content().chunks(usize::from(width));
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect();
    rows.map(line).map(|line: String| line.trim_end().to_owned() + "\n").collect()
}

/// Compares with the kept screen.
fn expect(name: &str, state: &State, (width, height): (u16, u16)) {
    let kept = format!("{}/src/tui/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let (kept, drawn) = (PathBuf::from(kept), drawn(state, width, height));
    if std::env::var_os("TAPGATE_BLESS").is_some() {
        std::fs::write(&kept, &drawn).expect("written");
    }
    let expected = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(drawn == expected, "{name} looks different:\n{drawn}");
}

#[test]
fn the_whole_site_fits_the_smallest_usual_terminal() {
    expect("site", &state(), (80, 24));
}

#[test]
fn a_large_terminal_shows_more() {
    expect("site-large", &state(), (120, 40));
}

#[test]
fn a_station_opens_with_all_that_is_known_of_it() {
    let mut state = state();
    press(&mut state, "\n");
    expect("station", &state, (80, 24));
}

#[test]
fn buses_are_listed_with_every_unit() {
    let mut state = state();
    press(&mut state, "b");
    expect("buses", &state, (80, 24));
}

#[test]
fn what_was_last_known_stays_while_the_daemon_is_away() {
    let mut state = state();
    state.on(Event::Gone("the daemon does not run (systemctl start tapgate)".into()));
    let gone = drawn(&state, 80, 24);
    assert!(gone.contains("waiting for the daemon") && gone.contains("washer-1"), "{gone}");

    state.on(Event::Status(site()));
    assert!(!drawn(&state, 80, 24).contains("waiting for"));
}

#[test]
fn before_the_first_answer_it_says_what_it_waits_for() {
    let nothing = State::new(TimeZone::UTC, true);
    assert!(drawn(&nothing, 80, 24).contains("waiting for the daemon: connecting"));
}

#[test]
fn a_test_needs_a_yes() {
    let mut state = state();
    assert_eq!(press(&mut state, "jt"), Action::None);
    expect("confirm", &state, (80, 24));
    assert_eq!(press(&mut state, "\n"), Action::None);
    assert!(drawn(&state, 80, 24).contains("washer-2 is left as it is"));

    assert_eq!(press(&mut state, "ty"), Action::Order(Order::Test("washer-2".into())));
    state.on(Event::Said("washer-2: the relay did not close".into()));
    assert!(drawn(&state, 80, 24).contains("the relay did not close"));
}

#[test]
fn the_filter_keeps_stations_taps_and_units_that_contain_it() {
    let mut state = state();
    press(&mut state, "/U-1042");
    expect("filter", &state, (80, 24));
    press(&mut state, "\n");
    assert_eq!((state.typing, state.stations().len(), state.taps().len()), (false, 1, 1));
    assert_eq!(state.units().len(), 0);

    assert_eq!(press(&mut state, "\u{1b}"), Action::None);
    assert_eq!((state.filter.as_str(), state.stations().len()), ("", 6));
    press(&mut state, "/q");
    assert_eq!(state.filter, "q", "keys go into the filter");
}

#[test]
fn the_chosen_station_is_always_on_the_screen() {
    let mut state = state();
    for _ in 0..20 {
        press(&mut state, "j");
    }
    assert_eq!(state.position(), 5);
    let small = drawn(&state, 80, 18);
    assert!(small.contains("charger-2"), "{small}");
    press(&mut state, "\n");
    assert_eq!(state.page, Page::Station("charger-2".into()));
    press(&mut state, "k");
    assert_eq!(state.page, Page::Station("charger-1".into()));
}

#[test]
fn help_and_quitting() {
    let mut state = state();
    press(&mut state, "?");
    expect("help", &state, (80, 24));
    assert_eq!(press(&mut state, "q"), Action::None, "any key closes the help");
    assert_eq!(press(&mut state, "q"), Action::Quit);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.on(Event::Key(interrupt)), Action::Quit);
}

#[test]
fn no_size_of_terminal_is_too_much_for_it() {
    let state = state();
    for (width, height) in [(1, 1), (20, 5), (60, 16), (80, 17), (300, 100)] {
        drawn(&state, width, height);
    }
    assert!(drawn(&state, 40, 10).contains("too small"));
}
