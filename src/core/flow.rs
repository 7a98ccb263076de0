//! What a register alone tells of the power: for meters without a power point.
//!
//! Between two steps of the register nothing is known but a bound: had more flowed, it would have
//! stepped. The bound falls as time passes, so a machine that is off is known to be idle in the
//! end; until then it counts as neither idle nor loaded.

use crate::core::time::Uptime;

/// The register's last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    register_wh: i64,
    since: Uptime,
}

/// What is known of the power now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// So many milliwatts, measured or averaged over the register's last step.
    Is(i64),
    /// At most so many milliwatts on average, ever since.
    AtMost(i64, Uptime),
}

/// Milliwatts that make one watt-hour in one millisecond.
const MW_MS_PER_WH: i128 = 1_000 * 3_600_000;

impl Flow {
    pub(super) fn new(register_wh: i64, now: Uptime) -> Flow {
        Flow { register_wh, since: now }
    }

    /// Takes a believed register in.
    pub(super) fn on_register(
        &mut self,
        register_wh: i64,
        resolution_wh: i64,
        now: Uptime,
    ) -> Power {
        let since = self.since;
        if register_wh > self.register_wh {
            let step_wh = register_wh - self.register_wh;
            *self = Flow::new(register_wh, now);
            return Power::Is(average_mw(step_wh, since, now));
        }
        Power::AtMost(average_mw(resolution_wh, since, now), since)
    }
}

fn average_mw(energy_wh: i64, since: Uptime, now: Uptime) -> i64 {
    let ms = i128::try_from(now.since(since).as_millis()).unwrap_or(i128::MAX).max(1);
    i64::try_from(i128::from(energy_wh) * MW_MS_PER_WH / ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(minute: u64) -> Uptime {
        Uptime(minute * 60_000)
    }

    #[test]
    fn a_step_tells_the_average_since_the_one_before() {
        let mut flow = Flow::new(5_000, minute(0));
        assert_eq!(flow.on_register(5_010, 1, minute(1)), Power::Is(600_000));
        assert_eq!(flow.on_register(5_011, 1, minute(2)), Power::Is(60_000));
    }

    #[test]
    fn silence_of_the_register_bounds_the_power_better_and_better() {
        let mut flow = Flow::new(5_000, minute(0));
        assert_eq!(flow.on_register(5_000, 1, minute(1)), Power::AtMost(60_000, minute(0)));
        assert_eq!(flow.on_register(5_000, 1, minute(60)), Power::AtMost(1_000, minute(0)));
    }
}
