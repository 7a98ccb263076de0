//! Draws the state. Nothing here changes it.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Wrap};

use super::panels::{self, Tone};
use super::state::{Order, Page, State};

/// Below this nothing useful fits.
const LEAST: (u16, u16) = (60, 16);

const HELP: &str = " up, down  j, k   choose a station; scroll the buses
 Enter            open the station
 b                all buses and units
 t                test: the switch closes for 2 s
 o, f             switch on, off for maintenance; all three ask
                  first and go on record
 /                show only what contains these letters;
                  Enter keeps the filter, Esc drops it
 Esc              back
 ?                this help
 q, Ctrl-C        quit

 P50/P99: half and 99 of 100 answers took at most this long.
 BUSY: share of the last minute in which the line was in use.
 ERRORS: requests of the last minute without a usable answer.";

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let (width, height) = LEAST;
        let text = format!("this terminal is too small; {width}x{height} is the least");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let rows = [Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [top, body, bottom] = Layout::vertical(rows).areas(area);
    let header = panels::header(state);
    frame.render_widget(Paragraph::new(header).style(Modifier::REVERSED), top);
    match &state.page {
        Page::Site | Page::Help | Page::Confirm(_) => site(frame, body, state),
        Page::Station(station) => {
            let lines = panels::station(state, station);
            panel(frame, body, &format!("Station {station}"), lines, state);
        }
        Page::Buses => {
            let mut lines = panels::buses(state);
            // The first line names the columns and stays.
            let skipped = state.scroll.min(lines.len().saturating_sub(2));
            lines.drain(1..1 + skipped);
            panel(frame, body, "Buses and units", lines, state);
        }
    }
    frame.render_widget(Paragraph::new(footer(state)), bottom);
    match &state.page {
        Page::Help => popup(frame, "Keys", HELP),
        Page::Confirm(order) => popup(frame, "Sure?", &question(order)),
        Page::Site | Page::Station(_) | Page::Buses => {}
    }
}

/// Stations get what the rest leaves; each panel has a title line.
fn site(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let (taps, buses) = (panels::taps(state), panels::worst_buses(state));
    let alarms = panels::alarms(state);
    let tall = area.height > 30;
    let (most_taps, most_buses, most_alarms) = if tall { (12, 12, 6) } else { (5, 5, 2) };
    let height = |lines: usize, most: usize| 1 + lines.min(most) as u16;
    let alarm_height = if alarms.is_empty() { 0 } else { height(alarms.len(), most_alarms) };
    let rows = [
        Constraint::Min(4),
        Constraint::Length(height(taps.len().max(1), most_taps)),
        Constraint::Length(height(buses.len(), most_buses)),
        Constraint::Length(2),
        Constraint::Length(alarm_height),
    ];
    let [top, middle, low, cloud, bottom] = Layout::vertical(rows).areas(area);
    let (title, lines) = panels::stations(state, usize::from(top.height).saturating_sub(2));
    panel(frame, top, &title, lines, state);
    panel(frame, middle, "Last taps", taps, state);
    panel(frame, low, "Buses and units, the worst first", buses, state);
    panel(frame, cloud, "Cloud", panels::cloud(state), state);
    if !alarms.is_empty() {
        panel(frame, bottom, "Look at", alarms, state);
    }
}

fn panel(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    lines: Vec<(Tone, String)>,
    state: &State,
) {
    let block = Block::new().borders(Borders::TOP).title(format!(" {title} "));
    let lines = lines.into_iter().map(|(tone, line)| Line::styled(line, style(tone, state)));
    frame.render_widget(Paragraph::new(Text::from_iter(lines)).block(block), area);
}

/// Colour only says again what the words say.
fn style(tone: Tone, state: &State) -> Style {
    let coloured = |colour| if state.colour { Style::new().fg(colour) } else { Style::new() };
    let style = match tone {
        Tone::Plain => Style::new(),
        Tone::Title => Style::new().add_modifier(Modifier::BOLD),
        Tone::Chosen => Style::new().add_modifier(Modifier::REVERSED),
        Tone::Good => coloured(Color::Green),
        Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Doubtful => coloured(Color::Yellow),
    };
    // What is old news looks like it.
    if state.gone.is_some() { style.add_modifier(Modifier::DIM) } else { style }
}

fn footer(state: &State) -> String {
    if state.typing {
        return format!(" /{}_   Enter keeps, Esc drops", state.filter);
    }
    let filter = match state.filter.as_str() {
        "" => String::new(),
        filter => format!(" [/{filter}]"),
    };
    match &state.said {
        Some(said) => format!("{filter} {said}"),
        None => {
            format!("{filter} q quit  ? help  / filter  Enter open  b buses  t test  o on  f off")
        }
    }
}

fn question(order: &Order) -> String {
    let what = match order {
        Order::Test(station) => format!(
            " Test {station}? Its switch closes for 2 s: whatever\n is behind it gets power."
        ),
        Order::On(station) => format!(
            " Switch {station} on? Whatever is behind it gets power,\n until it is switched off."
        ),
        Order::Off(station) => format!(
            " Switch {station} off? A technician's session ends; a\n resident's is not touched."
        ),
    };
    format!("{what}\n It goes on record.\n\n y  yes        any other key  no")
}

fn popup(frame: &mut Frame<'_>, title: &str, text: &str) {
    let area = frame.area();
    let height = (text.lines().count() as u16 + 2).min(area.height);
    let width = 66.min(area.width);
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(format!(" {title} "));
    frame.render_widget(Paragraph::new(text.to_owned()).block(block), area);
}
