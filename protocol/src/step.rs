//! What can happen next, and what it changes. Each step is one transaction of the center, one step of an agent, or one request that the
//! share's server carries out; see the table in `lib.rs` for what it stands for.

use crate::state::{Assigned, Ban, Boot, Copy, Epoch, NODES, NodeNumber, Shut, State, bit, set};
use crate::{Mistake, Operator, Protocol};

/// Something that happens. The number is a node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The center gives the right to run the environment.
    Give(usize),
    /// The center wants it back.
    AskBack,
    /// The center hears that an epoch was let go of.
    HearReleased(usize, Epoch),
    /// The center hears a registration.
    HearRegister(usize, Boot),
    /// The center suspects a node and stores a ban.
    Suspect(usize),
    /// The center hears that a boot is fenced.
    HearFenced(usize, Boot),
    /// An operator says that a machine is off.
    ConfirmOff(usize),
    /// A mistake: the center lifts a confirmed ban.
    LiftBan(usize),
    /// A mistake: a center that had told of a ban without storing it has been started anew.
    ForgetBan(usize),
    /// A node hears orders of this generation.
    Obey(usize, u8),
    /// It takes the lock.
    Lock(usize),
    /// It checks and writes the owner record.
    Own(usize),
    /// It starts the environment.
    Start(usize),
    /// The environment writes.
    Write(usize),
    /// The environment is ended.
    Kill(usize),
    /// The lock is let go of.
    LetGo(usize),
    /// The node says that nothing is left.
    SayReleased(usize),
    /// The node begins to go down.
    Leave(usize),
    /// The machine loses its power.
    Crash(usize),
    /// The machine starts.
    Boot(usize),
    /// The share node hears orders of this generation.
    ObeyBans(u8),
    /// It shuts a node out.
    Ban(usize),
    /// It ends what the node had in flight, and its locks.
    Expire(usize),
    /// It says that a node is fenced.
    SayFenced(usize),
    /// It lets a node in again.
    Unban(usize),
    /// It carries out a write.
    Serve(usize),
}

/// Everything that can happen; what changes nothing is left out by `Protocol::next_state`.
pub fn possible(protocol: &Protocol, state: &State, steps: &mut Vec<Step>) {
    let bans = state.bans.len();
    steps.extend((0..bans).map(|generation| Step::ObeyBans(number(generation))));
    for node in 0..NODES {
        if state.center.epoch < protocol.epochs && (node == 0 || state.center.epoch > 0) {
            steps.push(Step::Give(node));
        }
        if protocol.moves {
            steps.extend([Step::AskBack, Step::Leave(node)]);
        }
        if protocol.fences {
            steps.extend([Step::Suspect(node), Step::Ban(node), Step::Expire(node), Step::SayFenced(node), Step::Unban(node)]);
        }
        if protocol.operator != Operator::Absent {
            steps.extend([Step::ConfirmOff(node), Step::Crash(node)]);
        }
        match protocol.mistake {
            Some(Mistake::UnbansTheSameBoot) => steps.push(Step::LiftBan(node)),
            Some(Mistake::StoresAfterActing) => steps.push(Step::ForgetBan(node)),
            _ => {}
        }
        let boots = if node == 1 && protocol.fences { 1 } else { protocol.boots };
        if state.nodes[node].boot < boots {
            steps.push(Step::Boot(node));
        }
        let generations = state.orders[node].len();
        steps.extend((0..generations).map(|generation| Step::Obey(node, number(generation))));
        steps.extend((1..=state.center.epoch).map(|epoch| Step::HearReleased(node, epoch)));
        for boot in 1..=state.nodes[node].boot {
            steps.extend([Step::HearRegister(node, boot), Step::HearFenced(node, boot)]);
        }
        steps.extend([Step::Lock(node), Step::Own(node), Step::Start(node), Step::Write(node), Step::Kill(node)]);
        steps.extend([Step::LetGo(node), Step::SayReleased(node), Step::Serve(node)]);
    }
}

fn number(at: usize) -> u8 {
    u8::try_from(at).unwrap_or(u8::MAX)
}

/// Let it happen, if it can.
pub fn take(protocol: &Protocol, state: &mut State, step: Step) {
    match step {
        Step::Give(node) => state.give(node, protocol.mistake),
        Step::AskBack => state.ask_back(),
        Step::HearReleased(node, epoch) => state.hear_released(node, epoch),
        Step::HearRegister(node, boot) => state.hear_register(node, boot, protocol.mistake),
        Step::Suspect(node) => state.suspect(node),
        Step::HearFenced(node, boot) => state.hear_fenced(node, boot),
        Step::ConfirmOff(node) => state.confirm_off(node, protocol.operator),
        Step::LiftBan(node) => state.lift_ban(node),
        Step::ForgetBan(node) => state.forget_ban(node),
        Step::Obey(node, generation) => state.obey(node, generation, protocol.mistake),
        Step::Lock(node) => state.lock(node, protocol.mistake),
        Step::Own(node) => state.own(node),
        Step::Start(node) => state.start(node, protocol.mistake),
        Step::Write(node) => state.write(node),
        Step::Kill(node) => state.kill(node),
        Step::LetGo(node) => state.let_go(node),
        Step::SayReleased(node) => state.say_released(node),
        Step::Leave(node) => state.nodes[node].leaves |= state.nodes[node].is_on,
        Step::Crash(node) => state.crash(node),
        Step::Boot(node) => state.boot(node),
        Step::ObeyBans(generation) => state.share.newest = state.share.newest.max(generation),
        Step::Ban(node) => state.ban(node),
        Step::Expire(node) => state.expire(node),
        Step::SayFenced(node) => state.say_fenced(node, protocol.mistake),
        Step::Unban(node) => state.unban(node),
        Step::Serve(node) => state.serve(node, protocol.mistake),
    }
}

// ---- the center: each is one transaction -----------------------------------------------------------------------------------

impl State {
    /// Whether what a boot was given is void.
    fn has_ended(&self, node: usize, boot: Boot) -> bool {
        let center = &self.center;
        center.known[node].is_some_and(|known| known != boot)
            || center.off[node] == Some(boot)
            || center.bans[node].is_some_and(|ban| ban.boot == boot && ban.is_confirmed)
    }

    fn give(&mut self, node: usize, mistake: Option<Mistake>) {
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

    fn ask_back(&mut self) {
        if let Some(holder) = &mut self.center.holder {
            holder.is_asked_back = true;
            self.tell();
        }
    }

    /// Orders are computed again; those that came out different get the next generation.
    fn tell(&mut self) {
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

    fn hear_released(&mut self, node: usize, epoch: Epoch) {
        let is_holder = |holder: &Assigned| usize::from(holder.node) == node && holder.epoch == epoch;
        if bit(self.said.released[node], epoch) && self.center.holder.as_ref().is_some_and(is_holder) {
            self.center.holder = None;
            self.tell();
        }
    }

    fn hear_register(&mut self, node: usize, boot: Boot, mistake: Option<Mistake>) {
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
    fn suspect(&mut self, node: usize) {
        if let (Some(boot), None) = (self.center.known[node], self.center.bans[node]) {
            self.center.bans[node] = Some(Ban { boot, is_confirmed: false });
            self.tell();
        }
    }

    fn hear_fenced(&mut self, node: usize, boot: Boot) {
        if let Some(ban) = self.center.bans[node].as_mut().filter(|ban| ban.boot == boot)
            && bit(self.said.fenced[node], boot)
        {
            ban.is_confirmed = true;
        }
    }

    fn confirm_off(&mut self, node: usize, operator: Operator) {
        let Some(boot) = self.center.known[node] else { return };
        let machine = &self.nodes[node];
        let is_true = !machine.is_on || machine.boot != boot;
        let errs = operator == Operator::Errs && self.center.off.iter().all(Option::is_none);
        if is_true || errs {
            self.center.off[node] = Some(boot);
        }
    }

    fn lift_ban(&mut self, node: usize) {
        if self.center.bans[node].is_some_and(|ban| ban.is_confirmed) {
            self.center.bans[node] = None;
            self.tell();
        }
    }

    fn forget_ban(&mut self, node: usize) {
        if self.center.bans[node].is_some_and(|ban| !ban.is_confirmed) {
            self.center.bans[node] = None;
        }
    }
}

// ---- a node: each is one step of its agent, or of what it runs ---------------------------------------------------------------

impl State {
    fn obey(&mut self, node: usize, generation: u8, mistake: Option<Mistake>) {
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
    fn may_start(&self, node: usize, mistake: Option<Mistake>) -> Option<Assigned> {
        let machine = &self.nodes[node];
        let stays = !machine.leaves || mistake == Some(Mistake::StartsAfterRelease);
        let right = self.followed(node).filter(|_| machine.is_on && stays)?;
        let is_for_it = right.boot == machine.boot || mistake == Some(Mistake::StartsForAnotherBoot);
        (is_for_it && !right.is_asked_back).then_some(right)
    }

    /// Whether the share answers a node.
    fn reaches(&self, node: usize) -> bool {
        self.nodes[node].is_on && self.share.shut[node] == Shut::Open
    }

    /// A lock whose holder has fallen silent goes to whoever asks; at any time, for silence has no measure here.
    fn lock(&mut self, node: usize, mistake: Option<Mistake>) {
        let Some(right) = self.may_start(node, mistake) else { return };
        if self.nodes[node].copy == Copy::No && self.reaches(node) && self.may_hold(node, right.epoch) {
            self.share.lock = Some((number(node), self.nodes[node].boot));
            self.nodes[node].copy = Copy::Locked(right.epoch);
        }
    }

    /// `share::may_hold`.
    fn may_hold(&self, node: usize, epoch: Epoch) -> bool {
        let (me, boot) = (number(node), self.nodes[node].boot);
        self.share.owner.is_none_or(|owner| owner.0 < epoch || owner == (epoch, me, boot))
    }

    fn own(&mut self, node: usize) {
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

    fn start(&mut self, node: usize, mistake: Option<Mistake>) {
        if let Copy::Held(epoch) = self.nodes[node].copy
            && self.may_start(node, mistake).is_some_and(|right| right.epoch == epoch)
        {
            self.nodes[node].copy = Copy::Running(epoch);
        }
    }

    /// What is held is still what is ordered.
    fn may_go_on(&self, node: usize, epoch: Epoch) -> bool {
        let right = self.followed(node).filter(|right| right.epoch == epoch && !right.is_asked_back);
        right.is_some() && !self.nodes[node].leaves
    }

    fn write(&mut self, node: usize) {
        if let Copy::Running(epoch) = self.nodes[node].copy
            && self.reaches(node)
        {
            self.share.queue[node] = Some((self.nodes[node].boot, epoch));
        }
    }

    fn kill(&mut self, node: usize) {
        if let Copy::Running(epoch) = self.nodes[node].copy
            && !self.may_go_on(node, epoch)
        {
            self.nodes[node].copy = Copy::Held(epoch);
        }
    }

    /// Flushed and unmounted first: what is in flight has been carried out.
    fn let_go(&mut self, node: usize) {
        let (Copy::Locked(epoch) | Copy::Held(epoch)) = self.nodes[node].copy else { return };
        if !self.may_go_on(node, epoch) && self.reaches(node) && self.share.queue[node].is_none() {
            self.unlock(node);
        }
    }

    fn unlock(&mut self, node: usize) {
        self.nodes[node].copy = Copy::No;
        if self.share.lock == Some((number(node), self.nodes[node].boot)) {
            self.share.lock = None;
        }
    }

    /// Of what it was told to let go of, and of everything when it goes down.
    fn say_released(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let Some(right) = self.followed(node).filter(|right| machine.is_on && right.boot == machine.boot) else { return };
        if machine.copy == Copy::No && (right.is_asked_back || machine.leaves) {
            set(&mut self.said.released[node], right.epoch);
        }
    }

    fn crash(&mut self, node: usize) {
        let machine = &mut self.nodes[node];
        (machine.is_on, machine.leaves, machine.copy) = (false, false, Copy::No);
        (machine.newest, machine.follows) = (None, None);
    }

    fn boot(&mut self, node: usize) {
        self.crash(node);
        let machine = &mut self.nodes[node];
        (machine.is_on, machine.boot) = (true, machine.boot + 1);
        set(&mut self.said.registered[node], machine.boot);
    }
}

// ---- the share node ----------------------------------------------------------------------------------------------------------

impl State {
    /// The ban that its newest orders want.
    fn wanted(&self, node: usize) -> Option<Boot> {
        self.bans[usize::from(self.share.newest)][node]
    }

    fn ban(&mut self, node: usize) {
        if let Some(boot) = self.wanted(node)
            && !matches!(self.share.shut[node], Shut::Dropped(shut) | Shut::Gone(shut) if shut == boot)
        {
            self.share.shut[node] = Shut::Dropped(boot);
        }
    }

    /// It waits for what is in flight: that is carried out or not, before.
    fn expire(&mut self, node: usize) {
        let Shut::Dropped(boot) = self.share.shut[node] else { return };
        self.share.queue[node] = None;
        if self.share.lock.is_some_and(|(holder, _)| usize::from(holder) == node) {
            self.share.lock = None;
        }
        self.share.shut[node] = Shut::Gone(boot);
        set(&mut self.history.fenced[node], boot);
    }

    fn say_fenced(&mut self, node: usize, mistake: Option<Mistake>) {
        match self.share.shut[node] {
            Shut::Gone(boot) => set(&mut self.said.fenced[node], boot),
            Shut::Dropped(boot) if mistake == Some(Mistake::ConfirmsBeforeExpired) => set(&mut self.said.fenced[node], boot),
            _ => {}
        }
    }

    fn unban(&mut self, node: usize) {
        if self.wanted(node).is_none() {
            self.share.shut[node] = Shut::Open;
        }
    }

    /// A write through the descriptor that has the lock fails once the lock is another's.
    fn serve(&mut self, node: usize, mistake: Option<Mistake>) {
        let Some((boot, epoch)) = self.share.queue[node].take() else { return };
        let node: NodeNumber = number(node);
        if self.share.lock == Some((node, boot)) || mistake == Some(Mistake::LocksAnotherDescriptor) {
            self.history.is_interleaved |= epoch < self.share.disk;
            self.share.disk = self.share.disk.max(epoch);
        }
    }
}
