//! What the center does: each is one transaction.

use super::*;

impl State {
    /// Whether what a boot was given is void.
    pub(super) fn has_ended(&self, node: usize, boot: Boot) -> bool {
        let center = &self.center;
        center.known[node].is_some_and(|known| known != boot)
            || center.off[node] == Some(boot)
            || center.bans[node].is_some_and(|ban| ban.boot == boot && ban.is_confirmed)
    }

    pub(super) fn give(&mut self, node: usize, mistake: Option<Mistake>) {
        if let Some(holder) = self.center.holder {
            let from = usize::from(holder.node);
            let is_hasty = mistake == Some(Mistake::StartsBeforeConfirmed) && self.center.bans[from].is_some();
            if !self.has_ended(from, holder.boot) && !is_hasty {
                return;
            }
        }
        let Some(boot) = self.center.known[node] else { return };
        if self.center.bans[node].is_some() || self.center.off[node] == Some(boot) {
            return;
        }
        self.center.epoch += 1;
        let right = Assigned { epoch: self.center.epoch, node: number(node), boot, is_asked_back: false };
        self.center.holder = Some(right);
        self.tell();
    }

    pub(super) fn ask_back(&mut self) {
        if let Some(holder) = &mut self.center.holder {
            holder.is_asked_back = true;
            self.tell();
        }
    }

    /// Orders are computed again; those that came out different get the next generation.
    pub(super) fn tell(&mut self) {
        for node in 0..NODES {
            let assigned = self.center.holder.filter(|holder| usize::from(holder.node) == node);
            if self.orders[node].last() != Some(&assigned) {
                self.orders[node].push(assigned);
            }
        }
        let banned = std::array::from_fn(|node| self.center.bans[node].map(|ban| ban.boot));
        if self.bans.last() != Some(&banned) {
            self.bans.push(banned);
        }
    }

    pub(super) fn hear_released(&mut self, node: usize, epoch: Epoch) {
        let is_holder = |holder: &Assigned| usize::from(holder.node) == node && holder.epoch == epoch;
        if bit(self.said.released[node], epoch) && self.center.holder.as_ref().is_some_and(is_holder) {
            self.center.holder = None;
            self.tell();
        }
    }

    pub(super) fn hear_register(&mut self, node: usize, boot: Boot, mistake: Option<Mistake>) {
        let is_former = bit(self.center.former[node], boot) && mistake != Some(Mistake::TakesFormerBoots);
        let known = self.center.known[node];
        if !bit(self.said.registered[node], boot) || is_former || known == Some(boot) {
            return;
        }
        if let Some(known) = known {
            set(&mut self.center.former[node], known);
        }
        self.center.known[node] = Some(boot);
        if self.center.bans[node].is_some_and(|ban| ban.boot != boot) {
            self.center.bans[node] = None;
        }
        if self.center.holder.is_some_and(|holder| usize::from(holder.node) == node && holder.boot != boot) {
            self.center.holder = None;
        }
        self.tell();
    }

    /// It needs no reason: silence may mean anything.
    pub(super) fn suspect(&mut self, node: usize) {
        if let (Some(boot), None) = (self.center.known[node], self.center.bans[node]) {
            self.center.bans[node] = Some(Ban { boot, is_confirmed: false });
            self.tell();
        }
    }

    pub(super) fn hear_fenced(&mut self, node: usize, boot: Boot) {
        if let Some(ban) = self.center.bans[node].as_mut().filter(|ban| ban.boot == boot)
            && bit(self.said.fenced[node], boot)
        {
            ban.is_confirmed = true;
        }
    }

    pub(super) fn confirm_off(&mut self, node: usize, operator: Operator) {
        let Some(boot) = self.center.known[node] else { return };
        let machine = &self.nodes[node];
        let is_true = !machine.is_on || machine.boot != boot;
        let errs = operator == Operator::Errs && self.center.off.iter().all(Option::is_none);
        if is_true || errs {
            self.center.off[node] = Some(boot);
        }
    }

    pub(super) fn lift_ban(&mut self, node: usize) {
        if self.center.bans[node].is_some_and(|ban| ban.is_confirmed) {
            self.center.bans[node] = None;
            self.tell();
        }
    }

    pub(super) fn forget_ban(&mut self, node: usize) {
        if self.center.bans[node].is_some_and(|ban| !ban.is_confirmed) {
            self.center.bans[node] = None;
        }
    }
}
