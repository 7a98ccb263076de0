//! The live view of `tapgate top` and of the demo: events change the state, the screen is drawn
//! from it, and what the technician orders goes to the daemon.

mod link;
mod panels;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use jiff::tz::TimeZone;
use ratatui::crossterm::event::{self, Event as Input, KeyEventKind};

use state::{Action, Event, State};
use terminal::Screen;

/// Between two looks at keys, daemon and signals.
const LOOK: Duration = Duration::from_millis(100);
/// Events between the daemon's thread and the screen; that thread waits when it is full.
const EVENTS: usize = 16;

/// Lines that tell what goes on beside the gateway; the view ends when their sender does.
pub type Story = Receiver<String>;

/// Shows the gateway until `q`, SIGTERM, or the end of the story. The terminal is as before then.
pub fn show(socket: &Path, story: Option<Story>) -> io::Result<()> {
    let stop = terminal::told_to_stop()?;
    let (sender, events) = sync_channel(EVENTS);
    let orders = link::spawn(socket.into(), sender)?;
    let colour = std::env::var_os("NO_COLOR").is_none();
    let mut state = State::new(TimeZone::system(), colour);
    let mut screen = Screen::open()?;
    let mut stale = true;
    while !stop.is_set() {
        if std::mem::take(&mut stale) {
            screen.draw(|frame| view::draw(frame, &state))?;
        }
        let mut news = Vec::new();
        if event::poll(LOOK)? {
            match event::read()? {
                Input::Key(key) if key.kind != KeyEventKind::Release => news.push(Event::Key(key)),
                Input::Resize(..) => stale = true,
                Input::Key(_)
                | Input::Mouse(_)
                | Input::Paste(_)
                | Input::FocusGained
                | Input::FocusLost => {}
            }
        }
        news.extend(events.try_iter());
        match story.as_ref().map(Receiver::try_recv) {
            Some(Ok(line)) => news.push(Event::Story(line)),
            Some(Err(TryRecvError::Disconnected)) => return Ok(()),
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        for event in news {
            stale = true;
            match state.on(event) {
                Action::None => {}
                Action::Quit => return Ok(()),
                // The thread ends only with this function.
                Action::Order(order) => drop(orders.send(order)),
            }
        }
    }
    Ok(())
}
