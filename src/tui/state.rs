//! What the view knows, and what events do to it.

use jiff::tz::TimeZone;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::core::ids::StationId;
use crate::core::view::StationView;
use crate::protocol::control::{DeviceStatus, Status};
use crate::protocol::watch::TapStatus;

/// Longest filter: names are at most that long, and it must fit the last line.
const FILTER_MAX: usize = 32;

/// What happens to the view.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A key went down.
    Key(KeyEvent),
    /// How the gateway stands.
    Status(Box<Status>),
    /// Nobody says how it stands, and why.
    Gone(String),
    /// What came of an order.
    Said(String),
    /// What goes on beside the gateway.
    Story(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    Order(Order),
}

/// What a technician may order here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Close the switch for two seconds, on record.
    Test(StationId),
    /// Give power for maintenance, on record.
    On(StationId),
    /// End that.
    Off(StationId),
}

impl Order {
    pub(super) fn station(&self) -> &StationId {
        match self {
            Order::Test(station) | Order::On(station) | Order::Off(station) => station,
        }
    }
}

/// What is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// Stations, taps, buses, cloud.
    Site,
    /// One station, with all that is known of it.
    Station(StationId),
    /// All buses and units.
    Buses,
    Help,
    /// An order that waits for a yes.
    Confirm(Order),
}

/// Everything that is drawn.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// As last heard; stays on the screen while the daemon is away.
    pub(super) status: Option<Box<Status>>,
    /// Why the daemon does not say how things stand.
    pub(super) gone: Option<String>,
    pub(super) page: Page,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) typing: bool,
    pub(super) selected: Option<StationId>,
    /// The first line of the page of buses.
    pub(super) scroll: usize,
    /// What came of the last order, or what goes on beside the gateway.
    pub(super) said: Option<String>,
    pub(super) zone: TimeZone,
    pub(super) colour: bool,
}

impl State {
    pub(super) fn new(zone: TimeZone, colour: bool) -> State {
        State {
            status: None,
            gone: None,
            page: Page::Site,
            filter: String::new(),
            typing: false,
            selected: None,
            scroll: 0,
            said: None,
            zone,
            colour,
        }
    }

    pub(super) fn on(&mut self, event: Event) -> Action {
        match event {
            Event::Key(key) => return self.on_key(key),
            Event::Status(status) => {
                self.gone = None;
                self.status = Some(status);
            }
            Event::Gone(why) => self.gone = Some(why),
            Event::Said(said) | Event::Story(said) => self.said = Some(said),
        }
        Action::None
    }

    fn on_key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            return Action::None;
        }
        match std::mem::replace(&mut self.page, Page::Site) {
            Page::Confirm(order) => return self.answer(key.code, order),
            // Any key closes the help.
            Page::Help => return Action::None,
            page @ (Page::Site | Page::Station(_) | Page::Buses) => self.page = page,
        }
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?') => self.page = Page::Help,
            KeyCode::Char('/') => (self.typing, self.page) = (true, Page::Site),
            KeyCode::Char('b') => (self.scroll, self.page) = (0, Page::Buses),
            KeyCode::Char('t') => self.propose(Order::Test),
            KeyCode::Char('o') => self.propose(Order::On),
            KeyCode::Char('f') => self.propose(Order::Off),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Enter if self.page == Page::Site => {
                self.page = self.chosen().map_or(Page::Site, Page::Station);
            }
            KeyCode::Enter | KeyCode::Esc => self.leave(),
            _ => {}
        }
        Action::None
    }

    /// Asks before anything is switched.
    fn propose(&mut self, order: fn(StationId) -> Order) {
        if let Some(station) = self.chosen() {
            self.page = Page::Confirm(order(station));
        }
    }

    fn answer(&mut self, key: KeyCode, order: Order) -> Action {
        let station = order.station();
        if key != KeyCode::Char('y') {
            self.said = Some(format!("{station} is left as it is"));
            return Action::None;
        }
        self.said = Some(match &order {
            Order::Test(_) => format!("{station} is being tested ..."),
            Order::On(_) => format!("{station} is being switched on ..."),
            Order::Off(_) => format!("{station} is being switched off ..."),
        });
        Action::Order(order)
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.chars().count() < FILTER_MAX => {
                self.filter.push(letter);
            }
            _ => {}
        }
    }

    /// Back to the site; there, what is left is the filter.
    fn leave(&mut self) {
        if self.page == Page::Site {
            self.filter.clear();
            self.said = None;
        }
        self.page = Page::Site;
    }

    fn move_by(&mut self, step: isize) {
        if self.page == Page::Buses {
            let status = self.status.as_ref();
            let lines = status.map_or(0, |status| status.buses.len() + status.devices.len());
            self.scroll = self.scroll.saturating_add_signed(step).min(lines.saturating_sub(1));
            return;
        }
        let stations: Vec<StationId> =
            self.stations().into_iter().map(|station| station.station.clone()).collect();
        let at = self.position();
        let next = at.saturating_add_signed(step).min(stations.len().saturating_sub(1));
        self.selected = stations.get(next).cloned();
        if let (Page::Station(shown), Some(next)) = (&mut self.page, &self.selected) {
            *shown = next.clone();
        }
    }

    /// Where the selected station is among those that are shown.
    pub(super) fn position(&self) -> usize {
        let stations = self.stations();
        let selected = self.selected.as_ref();
        let at = stations.iter().position(|station| Some(&station.station) == selected);
        at.unwrap_or(0)
    }

    fn chosen(&self) -> Option<StationId> {
        if let Page::Station(station) = &self.page {
            return Some(station.clone());
        }
        self.stations().get(self.position()).map(|station| station.station.clone())
    }

    /// The stations that the filter lets through: by name, label, kind, state, user, badge.
    pub(super) fn stations(&self) -> Vec<&StationView> {
        let stations = self.status.iter().flat_map(|status| &status.stations);
        let shown = stations.filter(|station| {
            let session = station.session.as_ref();
            let user = session.and_then(|session| session.user.as_ref());
            let badge = session.and_then(|session| session.badge.as_ref());
            self.lets_through(&[
                station.station.as_str(),
                &station.label,
                station.kind.as_str(),
                station.state.as_str(),
                user.map_or("", |user| user.as_str()),
                badge.map_or("", |badge| badge.as_str()),
            ])
        });
        shown.collect()
    }

    /// The taps that the filter lets through, the newest first.
    pub(super) fn taps(&self) -> Vec<&TapStatus> {
        let taps = self.status.iter().flat_map(|status| &status.taps);
        let shown = taps.filter(|tap| {
            self.lets_through(&[
                tap.reader.as_str(),
                tap.decision.as_str(),
                tap.reason.map_or("", |reason| reason.as_str()),
                tap.station.as_ref().map_or("", |station| station.as_str()),
                tap.user.as_ref().map_or("", |user| user.as_str()),
                tap.badge.as_ref().map_or("", |badge| badge.as_str()),
            ])
        });
        shown.collect()
    }

    /// The units that the filter lets through.
    pub(super) fn units(&self) -> Vec<&DeviceStatus> {
        let units = self.status.iter().flat_map(|status| &status.devices);
        units.filter(|unit| self.lets_through(&[&unit.bus, &unit.device, &unit.state])).collect()
    }

    fn lets_through(&self, words: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        words.iter().any(|word| word.to_lowercase().contains(&wanted))
    }
}
