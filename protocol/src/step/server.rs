//! What the share node does.

use super::*;

impl State {
    /// The ban that its newest orders want.
    pub(super) fn wanted(&self, node: usize) -> Option<Boot> {
        self.bans[usize::from(self.share.newest)][node]
    }

    pub(super) fn ban(&mut self, node: usize) {
        if let Some(boot) = self.wanted(node)
            && !matches!(self.share.shut[node], Shut::Dropped(shut) | Shut::Gone(shut) if shut == boot)
        {
            self.share.shut[node] = Shut::Dropped(boot);
        }
    }

    /// It waits for what is in flight: that is carried out or not, before.
    pub(super) fn expire(&mut self, node: usize) {
        let Shut::Dropped(boot) = self.share.shut[node] else { return };
        self.share.queue[node] = None;
        if self.share.lock.is_some_and(|(holder, _)| usize::from(holder) == node) {
            self.share.lock = None;
        }
        self.share.shut[node] = Shut::Gone(boot);
        set(&mut self.history.fenced[node], boot);
    }

    pub(super) fn say_fenced(&mut self, node: usize, mistake: Option<Mistake>) {
        match self.share.shut[node] {
            Shut::Gone(boot) => set(&mut self.said.fenced[node], boot),
            Shut::Dropped(boot) if mistake == Some(Mistake::ConfirmsBeforeExpired) => set(&mut self.said.fenced[node], boot),
            _ => {}
        }
    }

    pub(super) fn unban(&mut self, node: usize) {
        if self.wanted(node).is_none() {
            self.share.shut[node] = Shut::Open;
        }
    }

    /// A write through the descriptor that has the lock fails once the lock is another's.
    pub(super) fn serve(&mut self, node: usize, mistake: Option<Mistake>) {
        let Some((boot, epoch)) = self.share.queue[node].take() else { return };
        let node: NodeNumber = number(node);
        if self.share.lock == Some((node, boot)) || mistake == Some(Mistake::LocksAnotherDescriptor) {
            self.history.is_interleaved |= epoch < self.share.disk;
            self.share.disk = self.share.disk.max(epoch);
        }
    }
}
