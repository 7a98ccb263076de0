//! The terminal: taken over, and given back however this ends.

use std::io::{self, Stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};
use tokio::signal::unix::{SignalKind, signal};

/// The whole screen; the shell's comes back when this is dropped, and on a panic too.
pub(super) struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    pub(super) fn open() -> io::Result<Screen> {
        let screen = ratatui::try_init();
        if screen.is_err() {
            // Half of it may have been done.
            let _ = ratatui::try_restore();
        }
        Ok(Screen(screen?))
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Set by a signal that ends programs.
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Watches for SIGTERM, SIGINT and the end of the SSH connection.
pub(super) fn told_to_stop() -> io::Result<Stop> {
    let stop = Stop(Arc::default());
    let set = Arc::clone(&stop.0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let [terminate, interrupt, hang_up] = &mut signals;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        set.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}
