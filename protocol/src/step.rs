//! What can happen next, and what it changes. Each step is one transaction of the center, one step of an agent, or one request that the
//! share's server carries out; see the table in `lib.rs` for what it stands for.

mod center;
mod node;
mod server;

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
