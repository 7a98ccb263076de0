//! What if it died here? Asked after every effect that outlives the daemon (a commit, a memo, a
//! switch that moved), in every scenario: a copy of the world dies, starts again, and must hold.

use super::{Death, Relay, World};

/// The daemon alone; the house for a moment, with and without a clock afterwards; and for a day.
const DEATHS: [Death; 4] = [
    Death::Daemon,
    Death::Power { minutes: 5, synced: true },
    Death::Power { minutes: 5, synced: false },
    Death::Power { minutes: 24 * 60, synced: true },
];
/// So long is watched what becomes of it: resumptions two seconds apart, three attempts to close.
const AFTERWARDS_S: u64 = 40;

impl World {
    /// Dies in every way, in a copy.
    pub(super) fn would_survive(&self) {
        if self.is_copy {
            return;
        }
        for death in DEATHS {
            let mut copy = self.clone();
            copy.is_copy = true;
            copy.kill_after = None;
            copy.death = death;
            copy.kill();
            copy.run(AFTERWARDS_S);
            copy.holds_after(death, self);
        }
    }

    /// Conservation, and that power never precedes its record, is checked with every step.
    fn holds_after(&self, death: Death, before: &World) {
        let ends = before.disk.intends_an_end();
        if death == Death::Daemon && !ends {
            let cuts = self.cuts_under_load - before.cuts_under_load;
            assert_eq!(cuts, 0, "a machine was cut because the daemon died");
        }
        for (id, plant) in &self.plants {
            if plant.relay != Relay::Obeys || death == Death::Daemon {
                continue;
            }
            let used = self.disk.has_running_session(id);
            assert!(!plant.closed || used, "{id} is closed for nobody after {death:?}");
        }
    }
}
