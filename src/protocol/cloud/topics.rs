//! The topics of one gateway. The gateway id is at a fixed level, so that one ACL rule serves a
//! fleet: write `tapgate/1/%u/up/#`, read `tapgate/1/%u/down/#`.

use crate::core::ids::StationId;

/// The topics of one gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    root: String,
}

/// What came down, by its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Down {
    /// `down/ack`: the cloud has stored records.
    Ack,
    /// `down/allowlist`: the head of a list.
    Allowlist,
    /// `down/part`: a chunk of a list.
    Part,
    /// `down/cmd`: a command.
    Command,
}

impl Down {
    /// The topic below the gateway's own level.
    pub fn as_str(self) -> &'static str {
        match self {
            Down::Ack => "down/ack",
            Down::Allowlist => "down/allowlist",
            Down::Part => "down/part",
            Down::Command => "down/cmd",
        }
    }

    /// The `typ` that a signed payload must have; parts are named by their hash and unsigned.
    pub fn signed_type(self) -> Option<&'static str> {
        match self {
            Down::Ack => Some("ack"),
            Down::Allowlist => Some("allowlist"),
            Down::Command => Some("cmd"),
            Down::Part => None,
        }
    }
}

impl Topics {
    /// The topics of gateway `id`.
    pub fn new(id: &str) -> Topics {
        Topics { root: format!("tapgate/1/{id}") }
    }

    /// Birth and last will, retained.
    pub fn state(&self) -> String {
        self.up("state")
    }

    /// What a portal shows of a station, retained.
    pub fn station(&self, station: &StationId) -> String {
        self.up(&format!("station/{station}"))
    }

    /// Batches of ledger records.
    pub fn usage(&self) -> String {
        self.up("usage")
    }

    /// Signed totals, retained.
    pub fn checkpoint(&self) -> String {
        self.up("checkpoint")
    }

    /// What became of allowlists.
    pub fn allowlist(&self) -> String {
        self.up("allowlist")
    }

    /// Alarms and denials.
    pub fn event(&self) -> String {
        self.up("event")
    }

    /// Answers to commands.
    pub fn reply(&self) -> String {
        self.up("reply")
    }

    /// A topic that the cloud publishes on.
    pub fn down(&self, what: Down) -> String {
        format!("{}/{}", self.root, what.as_str())
    }

    /// The gateway's only subscription.
    pub fn subscription(&self) -> String {
        format!("{}/down/#", self.root)
    }

    /// What an incoming topic is; `None` for what this version does not know.
    pub fn parse(&self, topic: &str) -> Option<Down> {
        let below = topic.strip_prefix(&self.root)?.strip_prefix('/')?;
        [Down::Ack, Down::Allowlist, Down::Part, Down::Command]
            .into_iter()
            .find(|down| down.as_str() == below)
    }

    fn up(&self, what: &str) -> String {
        format!("{}/up/{what}", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_of_the_contract() {
        let topics = Topics::new("ch-lausanne-012-a");

        assert_eq!(topics.state(), "tapgate/1/ch-lausanne-012-a/up/state");
        assert_eq!(
            topics.station(&"washer-1".into()),
            "tapgate/1/ch-lausanne-012-a/up/station/washer-1"
        );
        assert_eq!(topics.usage(), "tapgate/1/ch-lausanne-012-a/up/usage");
        assert_eq!(topics.checkpoint(), "tapgate/1/ch-lausanne-012-a/up/checkpoint");
        assert_eq!(topics.allowlist(), "tapgate/1/ch-lausanne-012-a/up/allowlist");
        assert_eq!(topics.event(), "tapgate/1/ch-lausanne-012-a/up/event");
        assert_eq!(topics.reply(), "tapgate/1/ch-lausanne-012-a/up/reply");
        assert_eq!(topics.subscription(), "tapgate/1/ch-lausanne-012-a/down/#");
    }

    #[test]
    fn reads_the_topics_that_it_writes_and_no_others() {
        let topics = Topics::new("gw");
        for down in [Down::Ack, Down::Allowlist, Down::Part, Down::Command] {
            assert_eq!(topics.parse(&topics.down(down)), Some(down));
        }
        for other in ["tapgate/1/gw/down", "tapgate/1/gw/down/ack/x", "tapgate/1/gw2/down/ack", ""]
        {
            assert_eq!(topics.parse(other), None, "{other}");
        }
    }
}
