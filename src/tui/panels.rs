//! The panels' lines: text and tone, nothing of the terminal.

use crate::core::ids::StationId;
use crate::core::time::Wall;
use crate::core::view::{State as Station, StationView};
use crate::protocol::control::Status;
use crate::protocol::figures::Figures;
use crate::protocol::watch::{TapDecision, TapStatus};

use super::state::State;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Title,
    Chosen,
    Good,
    Doubtful,
    Bad,
}

type Lines = Vec<(Tone, String)>;

/// The gateway, or that nobody knows how it stands.
pub(super) fn header(state: &State) -> String {
    let Some(status) = &state.status else {
        let why = state.gone.as_deref().unwrap_or("connecting");
        return format!(" waiting for the daemon: {why} ");
    };
    let Status { gateway, version, clock, running_s, .. } = status.as_ref();
    if let Some(why) = &state.gone {
        return format!(" {gateway}: waiting for the daemon: {why} ");
    }
    let (hours, minutes) = (running_s / 3_600, running_s % 3_600 / 60);
    format!(" {gateway}  tapgate {version}  up {hours}h{minutes:02}m  clock {clock} ")
}

/// Title and lines; the chosen one stays within `height`.
pub(super) fn stations(state: &State, height: usize) -> (String, Lines) {
    let stations = state.stations();
    let running = stations.iter().filter(|station| station.session.is_some()).count();
    let power: i64 = stations.iter().filter_map(|station| station.power_mw).sum();
    let title = format!("Stations: {running} of {} in use, {} W", stations.len(), power / 1_000);
    let header = format!(
        " {:<16} {:<14} {:>8} {:>13}  {}",
        "STATION", "STATE", "POWER", "METER", "SESSION, ENERGY"
    );
    let chosen = state.position();
    let first = (chosen + 1).saturating_sub(height.max(1));
    let lines = stations.iter().enumerate().skip(first).map(|(at, station)| {
        let tone = if at == chosen { Tone::Chosen } else { tone_of(station.state) };
        (tone, station_line(station))
    });
    (title, std::iter::once((Tone::Title, header)).chain(lines).collect())
}

fn station_line(station: &StationView) -> String {
    let (id, state) = (&station.station, station.state.as_str());
    let (power, meter) = (watts(station.power_mw), kwh(station.register_wh));
    let session = station.session.as_ref().map_or(String::new(), |session| {
        let user = session.user.as_ref().map_or("-", |user| user.as_str());
        let energy = session.energy_wh.map_or("unmetered".into(), |wh| format!("{wh} Wh"));
        format!("{user} {} {energy} ", minutes(session.duration_s))
    });
    let trouble = station.fault.as_deref().or(station.note.as_deref()).unwrap_or("");
    format!(" {id:<16} {state:<14} {power:>8} {meter:>13}  {session}{trouble}")
}

fn tone_of(state: Station) -> Tone {
    match state {
        Station::Available => Tone::Plain,
        Station::Starting | Station::InUse | Station::Idle => Tone::Good,
        Station::OutOfService => Tone::Doubtful,
        Station::Faulted => Tone::Bad,
    }
}

pub(super) fn taps(state: &State) -> Lines {
    let taps = state.taps();
    if taps.is_empty() {
        return vec![(Tone::Plain, " none yet".into())];
    }
    taps.into_iter().map(|tap| tap_line(tap, state)).collect()
}

fn tap_line(tap: &TapStatus, state: &State) -> (Tone, String) {
    let decision = tap.reason.map_or(tap.decision.as_str(), |reason| reason.as_str());
    let tone = match tap.decision {
        TapDecision::Granted | TapDecision::Stopped => Tone::Good,
        TapDecision::YoursRunning | TapDecision::SelectStation => Tone::Plain,
        TapDecision::Denied => Tone::Bad,
    };
    let mark = if tap.decision == TapDecision::Denied { "refused" } else { "" };
    let station = tap.station.as_ref().map_or("", |station| station.as_str());
    let user = tap.user.as_ref().map_or("", |user| user.as_str());
    let badge = tap.badge.as_ref().map_or("", |badge| badge.as_str());
    let (time, reader) = (clock(tap.at, state), &tap.reader);
    let text =
        format!(" {time} {reader:<12} {mark:<7} {decision:<18} {station:<14} {user} {badge}");
    (tone, text.trim_end().to_owned())
}

const COLUMNS: &str = "BUSY   P50/P99    ERRORS  FAILED/REQUESTS";

/// Buses, then units: those that do not answer first, then the busiest.
pub(super) fn worst_buses(state: &State) -> Lines {
    let mut units = state.units();
    units.sort_by_key(|unit| {
        let well = unit.state == "ok";
        let (rate, busy) =
            (unit.figures.error_rate_permille.unwrap_or(0), unit.figures.utilisation_percent);
        (well, u16::MAX - rate, u8::MAX - busy)
    });
    let units = units.into_iter().map(|unit| unit_line(&unit.device, unit));
    titled(bus_lines(state).chain(units))
}

/// Every bus with its units, in the config's order.
pub(super) fn buses(state: &State) -> Lines {
    let units = state.units();
    let lines = state.status.iter().flat_map(|status| &status.buses).flat_map(|bus| {
        let own = units.iter().filter(|unit| unit.bus == bus.bus);
        let own = own.map(|unit| unit_line(&format!("  {:>3} {}", unit.unit, unit.device), unit));
        std::iter::once(bus_line(bus)).chain(own).collect::<Lines>()
    });
    titled(lines)
}

fn titled(lines: impl Iterator<Item = (Tone, String)>) -> Lines {
    let header = format!(" {:<22} {:<8} {COLUMNS}", "BUS, UNIT", "STATE");
    std::iter::once((Tone::Title, header)).chain(lines).collect()
}

fn bus_lines(state: &State) -> impl Iterator<Item = (Tone, String)> {
    state.status.iter().flat_map(|status| &status.buses).map(bus_line)
}

fn bus_line(bus: &crate::protocol::control::BusStatus) -> (Tone, String) {
    let (tone, word) = if bus.error.is_some() { (Tone::Bad, "down") } else { (Tone::Plain, "ok") };
    (tone, figures_line(&bus.bus, word, &bus.figures, bus.error.as_deref()))
}

fn unit_line(name: &str, unit: &crate::protocol::control::DeviceStatus) -> (Tone, String) {
    let tone = match unit.state.as_str() {
        "ok" if unit.trouble.is_some() => Tone::Doubtful,
        "ok" => Tone::Plain,
        "down" => Tone::Bad,
        _ => Tone::Doubtful,
    };
    (tone, figures_line(name, &unit.state, &unit.figures, unit.complaint()))
}

fn figures_line(name: &str, state: &str, figures: &Figures, error: Option<&str>) -> String {
    let Figures { requests, errors, utilisation_percent: busy, .. } = figures;
    let (latency, rate) = (figures.latency(), figures.error_rate());
    let counts = format!("{errors}/{requests}");
    let error = error.unwrap_or("");
    let text =
        format!(" {name:<22} {state:<8} {busy:>2} % {latency:>10} {rate:>8} {counts:>16}  {error}");
    text.trim_end().to_owned()
}

pub(super) fn cloud(state: &State) -> Lines {
    let Some(status) = &state.status else { return vec![(Tone::Plain, " unknown".into())] };
    let list = status.allowlist.as_ref().map_or("no list yet".into(), |list| {
        format!("list {} with {} badges", list.version, list.count)
    });
    let ledger = &status.ledger;
    let Some(cloud) = &status.cloud else {
        let text = format!(" stand-alone site; {} records; {list}", ledger.head);
        return vec![(Tone::Plain, text)];
    };
    let waiting = format!(
        "{} records and {} events wait; {list}",
        ledger.unacknowledged, cloud.events_waiting
    );
    if cloud.connected {
        return vec![(Tone::Good, format!(" connected; {waiting}"))];
    }
    let why = cloud.last_error.as_deref().unwrap_or("connecting");
    vec![(Tone::Doubtful, format!(" not connected; {waiting}; {why}"))]
}

pub(super) fn alarms(state: &State) -> Lines {
    let alarms = state.status.iter().flat_map(|status| &status.alarms);
    alarms.map(|alarm| (Tone::Bad, format!(" {alarm}"))).collect()
}

/// Everything that is known of one station.
pub(super) fn station(state: &State, id: &StationId) -> Lines {
    let stations = state.status.iter().flat_map(|status| &status.stations);
    let Some(station) = stations.into_iter().find(|station| station.station == *id) else {
        return vec![(Tone::Bad, " the config has no such station any more; Esc".into())];
    };
    let plain = |name: &str, value: String| (Tone::Plain, format!(" {name:<10} {value}"));
    let since = clock(station.since, state);
    let mut lines = vec![
        plain("label", station.label.clone()),
        plain("kind", station.kind.as_str().into()),
        (
            tone_of(station.state),
            format!(" {:<10} {}, since {since}", "state", station.state.as_str()),
        ),
    ];
    lines
        .extend(station.fault.iter().map(|fault| (Tone::Bad, format!(" {:<10} {fault}", "fault"))));
    lines.extend(station.note.iter().map(|note| plain("note", note.clone())));
    lines.push(plain("power", watts(station.power_mw)));
    lines.push(plain("meter", kwh(station.register_wh)));
    lines.extend(session_lines(station, state));
    lines.push((Tone::Title, " Taps".into()));
    let taps = state.status.iter().flat_map(|status| &status.taps);
    let own = taps.filter(|tap| tap.station.as_ref() == Some(id));
    lines.extend(own.map(|tap| tap_line(tap, state)));
    lines
}

fn session_lines(station: &StationView, state: &State) -> Lines {
    let plain = |name: &str, value: String| (Tone::Plain, format!(" {name:<10} {value}"));
    let Some(session) = &station.session else { return vec![plain("session", "none".into())] };
    let name = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let (started, ran) = (clock(session.started, state), minutes(session.duration_s));
    vec![
        plain("session", format!("{}, {}", session.session, session.phase)),
        plain("user", name(session.user.as_ref().map(|user| user.as_str()))),
        plain("badge", name(session.badge.as_ref().map(|badge| badge.as_str()))),
        plain("started", format!("{started}, {ran} ago")),
        plain("energy", session.energy_wh.map_or("unmetered".into(), |wh| format!("{wh} Wh"))),
    ]
}

fn watts(power_mw: Option<i64>) -> String {
    power_mw.map_or("-".into(), |mw| format!("{} W", mw / 1_000))
}

/// Whole watt-hours, as in `1204.988 kWh`.
fn kwh(register_wh: Option<i64>) -> String {
    register_wh.map_or("-".into(), |wh| format!("{}.{:03} kWh", wh / 1_000, wh.rem_euclid(1_000)))
}

fn minutes(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn clock(at: Wall, state: &State) -> String {
    at.timestamp().to_zoned(state.zone.clone()).strftime("%H:%M:%S").to_string()
}
