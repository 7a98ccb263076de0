//! A register that stands still although power flows: the meter hangs.

use std::time::Duration;

use crate::core::time::Uptime;

/// A register that stands still for this long, while by the power so much more than its resolution
/// has flowed, hangs. Some meters count in steps of a minute.
const FROZEN_FOR: Duration = Duration::from_secs(600);
const FROZEN_WH: i64 = 20;
/// Below its starting current a meter may show power and count nothing.
const COUNTED_MW: i64 = 50_000;
/// Over a longer pause between two readings nothing is known of the power.
const LOOKED_AWAY: Duration = Duration::from_secs(90);
/// Milliwatts times milliseconds that make a watt-hour.
const MW_MS_PER_WH: i128 = 1_000 * 3_600_000;

/// What must have flowed, by the power, since the register last moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standstill {
    since: Option<Uptime>,
    last: Option<(Uptime, i64)>,
    flowed_mw_ms: i128,
    frozen: bool,
    told: bool,
}

impl Standstill {
    /// Takes in what a reading showed: register and power.
    pub(super) fn on_reading(
        &mut self,
        shown: Option<(i64, i64)>,
        before_wh: Option<i64>,
        now: Uptime,
        resolution_wh: i64,
    ) {
        let Some((register_wh, power_mw)) = shown else { return };
        if Some(register_wh) != before_wh {
            *self = Standstill { since: Some(now), ..Standstill::default() };
        }
        if let Some((at, power_mw)) = self.last.filter(|(at, _)| now.since(*at) <= LOOKED_AWAY) {
            let counted = if power_mw >= COUNTED_MW { i128::from(power_mw) } else { 0 };
            self.flowed_mw_ms += counted * now.since(at).as_millis() as i128;
        }
        self.last = Some((now, power_mw));
        let stood = now.since(*self.since.get_or_insert(now));
        let enough = i128::from(3 * resolution_wh + FROZEN_WH) * MW_MS_PER_WH;
        self.frozen = stood >= FROZEN_FOR && self.flowed_mw_ms >= enough;
    }

    /// Whether it has just become clear that the register stands still although power flows.
    pub(super) fn take_news(&mut self) -> bool {
        let news = self.frozen && !self.told;
        self.told |= news;
        news
    }
}
