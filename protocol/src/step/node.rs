//! What a node does: each is one step of its agent, or of what it runs.

use super::*;

impl State {
    pub(super) fn obey(&mut self, node: usize, generation: u8, mistake: Option<Mistake>) {
        let machine = &mut self.nodes[node];
        if !machine.is_on {
            return;
        }
        let is_older = machine.newest.is_some_and(|newest| generation < newest);
        if is_older && mistake != Some(Mistake::TakesOlderOrders) {
            return;
        }
        self.history.took_older |= is_older;
        machine.newest = machine.newest.max(Some(generation));
        machine.follows = Some(generation);
    }

    /// The right that a node may use now.
    pub(super) fn may_start(&self, node: usize, mistake: Option<Mistake>) -> Option<Assigned> {
        let machine = &self.nodes[node];
        let stays = !machine.leaves || mistake == Some(Mistake::StartsAfterRelease);
        let right = self.followed(node).filter(|_| machine.is_on && stays)?;
        let is_for_it = right.boot == machine.boot || mistake == Some(Mistake::StartsForAnotherBoot);
        (is_for_it && !right.is_asked_back).then_some(right)
    }

    /// Whether the share answers a node.
    pub(super) fn reaches(&self, node: usize) -> bool {
        self.nodes[node].is_on && self.share.shut[node] == Shut::Open
    }

    /// A lock whose holder has fallen silent goes to whoever asks; at any time, for silence has no measure here.
    pub(super) fn lock(&mut self, node: usize, mistake: Option<Mistake>) {
        let Some(right) = self.may_start(node, mistake) else { return };
        if self.nodes[node].copy == Copy::No && self.reaches(node) && self.may_hold(node, right.epoch) {
            self.share.lock = Some((number(node), self.nodes[node].boot));
            self.nodes[node].copy = Copy::Locked(right.epoch);
        }
    }

    /// `share::may_hold`.
    pub(super) fn may_hold(&self, node: usize, epoch: Epoch) -> bool {
        let (me, boot) = (number(node), self.nodes[node].boot);
        self.share.owner.is_none_or(|owner| owner.0 < epoch || owner == (epoch, me, boot))
    }

    pub(super) fn own(&mut self, node: usize) {
        let Copy::Locked(epoch) = self.nodes[node].copy else { return };
        if !self.reaches(node) {
            return;
        }
        if self.may_hold(node, epoch) {
            self.share.owner = Some((epoch, number(node), self.nodes[node].boot));
            self.nodes[node].copy = Copy::Held(epoch);
        } else {
            self.unlock(node);
        }
    }

    pub(super) fn start(&mut self, node: usize, mistake: Option<Mistake>) {
        if let Copy::Held(epoch) = self.nodes[node].copy
            && self.may_start(node, mistake).is_some_and(|right| right.epoch == epoch)
        {
            self.nodes[node].copy = Copy::Running(epoch);
        }
    }

    /// What is held is still what is ordered.
    pub(super) fn may_go_on(&self, node: usize, epoch: Epoch) -> bool {
        let right = self.followed(node).filter(|right| right.epoch == epoch && !right.is_asked_back);
        right.is_some() && !self.nodes[node].leaves
    }

    pub(super) fn write(&mut self, node: usize) {
        if let Copy::Running(epoch) = self.nodes[node].copy
            && self.reaches(node)
        {
            self.share.queue[node] = Some((self.nodes[node].boot, epoch));
        }
    }

    pub(super) fn kill(&mut self, node: usize) {
        if let Copy::Running(epoch) = self.nodes[node].copy
            && !self.may_go_on(node, epoch)
        {
            self.nodes[node].copy = Copy::Held(epoch);
        }
    }

    /// Flushed and unmounted first: what is in flight has been carried out.
    pub(super) fn let_go(&mut self, node: usize) {
        let (Copy::Locked(epoch) | Copy::Held(epoch)) = self.nodes[node].copy else { return };
        if !self.may_go_on(node, epoch) && self.reaches(node) && self.share.queue[node].is_none() {
            self.unlock(node);
        }
    }

    pub(super) fn unlock(&mut self, node: usize) {
        self.nodes[node].copy = Copy::No;
        if self.share.lock == Some((number(node), self.nodes[node].boot)) {
            self.share.lock = None;
        }
    }

    /// Of what it was told to let go of, and of everything when it goes down.
    pub(super) fn say_released(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let Some(right) = self.followed(node).filter(|right| machine.is_on && right.boot == machine.boot) else { return };
        if machine.copy == Copy::No && (right.is_asked_back || machine.leaves) {
            set(&mut self.said.released[node], right.epoch);
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        (machine.is_on, machine.leaves, machine.copy) = (false, false, Copy::No);
        (machine.newest, machine.follows) = (None, None);
    }

    pub(super) fn boot(&mut self, node: usize) {
        self.crash(node);
        let machine = &mut self.nodes[node];
        (machine.is_on, machine.boot) = (true, machine.boot + 1);
        set(&mut self.said.registered[node], machine.boot);
    }
}
