//! Local blocks: what somebody on site, or the cloud, says of a badge until the list says it.

use crate::core::badge::Uid;
use crate::core::event::Event;
use crate::core::ids::BadgeId;
use crate::core::ledger::OverrideAction;
use crate::daemon::event_loop::Daemon;
use crate::io::store::StoreError;

impl Daemon {
    /// Blocks a badge from now on and says so on record; tells which it is, where the list knows
    /// it, and whether it was not blocked locally before.
    pub(super) async fn block_badge(
        &mut self,
        uid: Uid,
        by: &str,
    ) -> Result<(Option<BadgeId>, bool), StoreError> {
        let badge = self.store.lookup(uid).await?.map(|entry| entry.badge);
        let new = self.store.block_badge(uid, badge.clone(), by.to_owned()).await?;
        self.record_overrides().await;
        Ok((badge, new))
    }

    /// Ends a local block; tells whether there was one. What the list itself blocks stays so.
    pub(super) async fn clear_override(&mut self, uid: Uid, by: &str) -> Result<bool, StoreError> {
        let ended = self.store.unblock_badge(uid, by.to_owned()).await?;
        self.record_overrides().await;
        Ok(ended)
    }

    /// The same by the operator's id of the badge, as it was when the badge was blocked.
    pub(super) async fn clear_override_of(
        &mut self,
        badge: &BadgeId,
        by: &str,
    ) -> Result<bool, StoreError> {
        let blocks = self.store.local_blocks().await?;
        let found = blocks.into_iter().find(|block| block.badge.as_ref() == Some(badge));
        let uid = match found {
            Some(block) => Some(block.uid),
            None => self.store.lookup_badge(badge.clone()).await?.map(|(uid, _)| uid),
        };
        match uid {
            Some(uid) => self.clear_override(uid, by).await,
            None => Ok(false),
        }
    }

    /// Puts on record what changed of local blocks, and lets a block judge what runs.
    pub(super) async fn record_overrides(&mut self) {
        let notes = match self.store.override_notes().await {
            Ok(notes) => notes,
            Err(error) => return tracing::error!("changes of local blocks wait: {error}"),
        };
        let Some(newest) = notes.last().map(|note| note.id) else { return };
        for note in notes {
            let running = match note.action {
                OverrideAction::Blocked => self.running_entries().await,
                OverrideAction::Cleared => Vec::new(),
            };
            let (badge, action, by) = (note.badge, note.action, note.by);
            self.handle(Event::BadgeOverridden { badge, action, by, running }).await;
        }
        if let Err(error) = self.store.forget_override_notes(newest).await {
            tracing::warn!("changes of local blocks will be recorded again: {error}");
        }
    }
}
