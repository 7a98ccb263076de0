//! The log: to journald with structured fields, else to stderr.
//!
//! journald blocks its writers when it stalls, and a tap must not wait for a log. So events go
//! through a bounded queue to a thread of their own; what does not fit is dropped and counted.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt as stderr, reload};

/// A burst of this many lines waits for journald; at 200 bytes a line that is 100 KiB.
const QUEUE: usize = 512;
/// Sets the level (`info`, `debug`, `tapgate::io::modbus=trace`, ...).
pub const LEVEL_VARIABLE: &str = "TAPGATE_LOG";

/// Changes the level while the program runs.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Logs at `level` from now on; at what the environment says without one.
pub fn set_level(level: Option<&str>) {
    let filter = level.map_or_else(configured, |level| {
        libraries_in_trouble().with_default(level.parse().unwrap_or(LevelFilter::INFO))
    });
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(filter)
    {
        tracing::warn!(%error, "the level of the log cannot be changed");
    }
}

fn configured() -> Targets {
    let said = std::env::var(LEVEL_VARIABLE).ok().and_then(|said| said.parse().ok());
    said.unwrap_or_else(|| libraries_in_trouble().with_default(LevelFilter::INFO))
}

/// Libraries speak up only where something is wrong.
fn libraries_in_trouble() -> Targets {
    Targets::new().with_target("rumqttc", LevelFilter::ERROR)
}

/// Starts logging. Under systemd (`JOURNAL_STREAM`) to journald, else, or without it, to stderr.
pub fn init() {
    let (filter, handle) = reload::Layer::new(configured());
    LEVEL.get_or_init(|| handle);
    let journald = std::env::var_os("JOURNAL_STREAM").map(|_| queue_to_journald());
    let failure = match journald {
        Some(Ok(queue)) => {
            tracing_subscriber::registry().with(filter).with(queue).init();
            return;
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none();
    let lines = stderr::layer().with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
    if let Some(error) = failure {
        tracing::warn!(%error, "journald cannot be reached; logging to stderr");
    }
}

fn queue_to_journald() -> std::io::Result<Queue> {
    let layer = tracing_journald::layer()?
        .with_field_prefix(None)
        .with_syslog_identifier("tapgate".into())
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            trace: Priority::Debug,
            ..PriorityMappings::new()
        });
    let journald = Dispatch::new(tracing_subscriber::registry().with(layer));
    // Boxed: the queue has room for all of them from the start.
    let (lines, queue) = sync_channel::<Box<Line>>(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&dropped);
    std::thread::Builder::new()
        .name("journal".into())
        .stack_size(128 * 1024)
        .spawn(move || tracing::dispatcher::with_default(&journald, || write(&queue, &counter)))?;
    Ok(Queue { lines, dropped })
}

fn write(queue: &Receiver<Box<Line>>, dropped: &AtomicU64) {
    while let Ok(line) = queue.recv() {
        line.emit();
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!("journald was too slow: {lost} lines were dropped");
        }
    }
}

/// Hands events to the journal's thread; never waits.
struct Queue {
    lines: SyncSender<Box<Line>>,
    dropped: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for Queue {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Box::new(Line::new(*event.metadata().level()));
        event.record(&mut *line);
        match self.lines.try_send(line) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The structured fields of the journal; everything else goes into the message.
const FIELDS: [&str; 9] =
    ["station", "session", "badge", "user", "reader", "bus", "unit", "reason", "record"];

/// One event, owned.
struct Line {
    level: Level,
    message: String,
    fields: [Option<String>; FIELDS.len()],
}

impl Line {
    fn new(level: Level) -> Line {
        Line { level, message: String::new(), fields: Default::default() }
    }

    fn emit(&self) {
        let [station, session, badge, user, reader, bus, unit, reason, record] = &self.fields;
        macro_rules! emit {
            ($level:expr) => {
                tracing::event!(
                    target: "tapgate",
                    $level,
                    STATION = station.as_deref(),
                    SESSION = session.as_deref(),
                    BADGE = badge.as_deref(),
                    USER = user.as_deref(),
                    READER = reader.as_deref(),
                    BUS = bus.as_deref(),
                    UNIT = unit.as_deref(),
                    REASON = reason.as_deref(),
                    RECORD = record.as_deref(),
                    "{}",
                    self.message
                )
            };
        }
        if self.level == Level::ERROR {
            emit!(Level::ERROR);
        } else if self.level == Level::WARN {
            emit!(Level::WARN);
        } else if self.level == Level::INFO {
            emit!(Level::INFO);
        } else {
            emit!(Level::DEBUG);
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if name == "message" {
            let rest = std::mem::take(&mut self.message);
            let _ = write!(self.message, "{value:?}{rest}");
        } else if let Some(index) = FIELDS.iter().position(|known| *known == name) {
            self.fields[index] = Some(format!("{value:?}"));
        } else {
            let _ = write!(self.message, " {name}={value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Makes sure that nothing panics silently: a panic is logged like everything else.
pub fn log_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tracing::error!("tapgate stops, this is a bug to report: {panic}");
            default(panic);
        }));
    });
}
