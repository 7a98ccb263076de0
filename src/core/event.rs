//! What the world tells the core, and what the core wants done.

use crate::core::access::{Denial, Entry};
use crate::core::badge::{Technology, Uid};
use crate::core::ids::{BadgeId, ReaderId, SessionId, StationId};
use crate::core::ledger::{OverrideAction, Record};
use crate::core::orders::{Answer, OrderId, StartOrder, StopOrder};

/// A fact from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A card arrived on a bound reader and its UID was read.
    BadgePresented(Tap),
    /// A card arrived whose UID cannot be read.
    BadgeUnreadable {
        /// Where.
        reader: ReaderId,
        /// What its ATR says.
        technology: Technology,
    },
    /// The card left the reader.
    BadgeRemoved {
        /// Where.
        reader: ReaderId,
    },
    /// A reader of the config was found among those plugged in.
    ReaderFound {
        /// Which.
        reader: ReaderId,
    },
    /// A reader is gone: nobody can tap there.
    ReaderLost {
        /// Which.
        reader: ReaderId,
    },
    /// A station's switch was written or read.
    SwitchReported {
        /// Whose switch.
        station: StationId,
        /// What was found.
        report: SwitchReport,
    },
    /// A station's meter answered.
    MeterRead {
        /// Whose meter.
        station: StationId,
        /// What it said.
        reading: Reading,
    },
    /// A station's meter did not answer, or answered no value.
    MeterSilent {
        /// Whose meter.
        station: StationId,
    },
    /// Another allowlist decides from now on.
    AllowlistApplied {
        /// Which.
        allowlist: Allowlist,
        /// The entry that each open session's badge has in it.
        running: Vec<(SessionId, Option<Entry>)>,
    },
    /// A badge was blocked on site, or such a block ended.
    BadgeOverridden {
        /// Where the allowlist knows it.
        badge: Option<BadgeId>,
        /// What happened.
        action: OverrideAction,
        /// Who or what did it.
        by: String,
        /// The entry that each open session's badge has now; none where a block ended.
        running: Vec<(SessionId, Option<Entry>)>,
    },
    /// A valid head arrived, whether or not it changed anything: the list is fresh.
    AllowlistConfirmed,
    /// It is later than that, whatever the clock says.
    TimePassed {
        /// The latest time that is known to have passed.
        floor: crate::core::time::Wall,
    },
    /// The kernel's clock became synchronised; `before` is what it showed at this very moment
    /// before it was set, extrapolated from the last reading.
    ClockSynchronised {
        /// What the clock would have shown.
        before: crate::core::time::Wall,
    },
    /// A button of a station went down.
    ButtonPressed {
        /// Whose button.
        station: StationId,
        /// Id for the session that this may start.
        candidate: SessionId,
    },
    /// An operator or technician wants a session to start.
    StartOrdered(StartOrder),
    /// An operator or technician wants a session to end.
    StopOrdered(StopOrder),
    /// A station is out of service: the mark is on disk. A running session goes on to its end.
    TakenOutOfService {
        /// Which.
        station: StationId,
        /// Why, for whoever looks at it.
        note: Option<String>,
    },
    /// The mark is gone.
    ReturnedToService {
        /// Which.
        station: StationId,
    },
    /// A technician says that a station's meter is another one now.
    MeterExchanged {
        /// Which station's.
        station: StationId,
        /// Where the answer goes.
        order: OrderId,
    },
    /// A technician at the console gives a free station power, in service or not.
    TechnicianStarts {
        /// Which.
        station: StationId,
        /// Id for the session that this starts.
        candidate: SessionId,
    },
    /// A technician takes it away again.
    TechnicianEnds {
        /// Which.
        station: StationId,
    },
}

/// A badge on a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Where.
    pub reader: ReaderId,
    /// Which card.
    pub uid: Uid,
    /// What its ATR says.
    pub technology: Technology,
    /// What the allowlist says of it at this moment.
    pub entry: Option<Entry>,
    /// Id for the session that this may start, drawn by the shell.
    pub candidate: SessionId,
}

/// What a station's switch, and its contactor feedback where wired, show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchReport {
    /// Read back as closed.
    Closed {
        /// Contactor feedback, where wired.
        feedback: Option<bool>,
    },
    /// Read back as open.
    Open {
        /// Contactor feedback, where wired.
        feedback: Option<bool>,
    },
    /// Not known: the device did not answer.
    Unknown,
}

/// One answer of a meter. All values belong to the same moment, as far as the device allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Lifetime import register, floor of the watt-hours.
    pub energy_wh: Option<i64>,
    /// Active power in milliwatts.
    pub power_mw: Option<i64>,
    /// The meter's serial number, read at start and on reconnect.
    pub serial: Option<String>,
    /// What the charger says of the car.
    pub vehicle: Option<Vehicle>,
}

/// A charger's vehicle state in the words of IEC 61851.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vehicle {
    /// A: no car.
    Absent,
    /// B: a car that does not charge.
    Connected,
    /// C or D: a car that charges.
    Charging,
    /// E or F.
    Fault,
}

/// Which allowlist decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist {
    /// The list's id.
    pub list: String,
    /// Its version.
    pub version: u64,
    /// SHA-256 over its entries, hex.
    pub digest: String,
    /// Number of entries.
    pub count: u64,
}

/// What to record, then what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "records must be committed and commands must be run"]
pub struct Step {
    /// Committed in one transaction, in this order.
    pub records: Vec<Record>,
    /// Run in this order after the commit.
    pub commands: Vec<Command>,
}

/// What the core wants done. Every outcome returns as an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give a station power or permission, and verify it.
    CloseSwitch(StationId),
    /// Take power or permission away, and verify it.
    OpenSwitch(StationId),
    /// Tell how the switch stands, without touching it.
    ReadSwitch(StationId),
    /// Read the meter now.
    ReadMeter(StationId),
    /// Read the register alone, as fast as it can be had: a start waits for it. The reading is
    /// without power.
    ReadRegister(StationId),
    /// Read the meter from now on at this pace.
    PaceMeter(StationId, Pace),
    /// Watch the buttons of these stations, or of none.
    WatchButtons(ReaderId, Vec<StationId>),
    /// Set the station's lamp.
    SetLamp(StationId, bool),
    /// Tell the person at the reader what became of the tap.
    ShowFeedback(ReaderId, Feedback),
    /// Tell technician and cloud; may be lost.
    Notify(Notice),
    /// The station's public state changed.
    PublishStation(StationId),
    /// What becomes of an order.
    Answer(OrderId, Answer),
}

/// How often a station's meter is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No session: at least once a minute.
    Idle,
    /// A session: at least once a second.
    Running,
    /// Waiting for power to go to zero: at least every 200 ms.
    Ending,
}

/// What the person at the reader is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// A session starts.
    Granted,
    /// The session of this badge stops.
    Stopped,
    /// This badge's session is running.
    YoursRunning,
    /// Press the button of a free station.
    SelectStation,
    /// Refused.
    Denied(Denial),
}

/// Something a technician or the cloud should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say it")]
pub enum Notice {
    /// A tap was refused.
    Denied {
        reader: ReaderId,
        station: Option<StationId>,
        reason: Denial,
        /// `None` where the refusal came after the tap.
        technology: Option<Technology>,
        /// The badge, where the allowlist knows it.
        badge: Option<BadgeId>,
        /// The UID, where it does not; the shell sends it only where the config says so.
        uid: Option<Uid>,
    },
    /// A switch did not do what it was told.
    SwitchFailed { station: StationId },
    /// A switch is closed and powers something without a session.
    SwitchWithoutSession { station: StationId },
    /// Energy flowed without a session, more than the alarm allows.
    Unattributed { station: StationId, energy_wh: i64 },
    /// A register that cannot be right: the one before stands until it is clear what happened.
    MeterDoubted { station: StationId, shown_wh: i64, believed_wh: i64 },
    /// The register stands still although power flows: nothing of it will be billed.
    MeterFrozen { station: StationId, register_wh: i64 },
    /// Readings beyond `max_power` were believed after all.
    MeterImplausible { station: StationId },
}
