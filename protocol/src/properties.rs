//! What must hold in every state: invariants 1 to 5 of the design, and that no two copies write one disk. And what must be possible, so
//! that nothing holds only because nothing happens.

use stateright::Property;

use crate::state::{Copy, NODES, Shut, State, bit};
use crate::{Operator, Protocol};

/// All of them.
pub fn properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always("the disk is never written by an epoch after a later one", |_, state: &State| {
            !state.history.is_interleaved
        }),
        Property::always("3: whoever is shut out was stored as banned before", |_, state: &State| {
            (0..NODES).all(|node| is_intended(state, node))
        }),
        Property::always("4: a fenced boot is never let in again", |_, state: &State| {
            (0..NODES).all(|node| is_out(state, node))
        }),
        Property::always("5: no node takes orders older than the newest it has seen", |_, state: &State| {
            !state.history.took_older
        }),
    ];
    if protocol.moves {
        all.push(Property::sometimes("an environment moves after a clean stop", |_, state: &State| {
            state.runs(1) == Some(2) && bit(state.said.released[0], 1)
        }));
    }
    // With an operator's mistake a second copy is started, and only the lock keeps it from the disk.
    if protocol.operator != Operator::Errs {
        all.extend([
            Property::always(
                "1: what runs was given to this boot, is on record, and nobody else has its lock",
                |_, state: &State| (0..NODES).all(|node| has_right(state, node)),
            ),
            Property::always("2: nothing is given anew while the former copy may run", |_, state: &State| {
                (0..NODES).all(|node| is_known(state, node))
            }),
            Property::always("no two copies run", |_, state: &State| state.runs(0).is_none() || state.runs(1).is_none()),
        ]);
    }
    if protocol.fences {
        all.extend([
            Property::sometimes("an environment of a fenced node runs elsewhere", |_, state: &State| {
                state.is_fenced(0) && matches!(state.nodes[0].copy, Copy::Running(1)) && state.runs(1) == Some(2)
            }),
            Property::sometimes("a fenced node is back with a new boot and runs", |_, state: &State| {
                bit(state.history.fenced[0], 1) && state.nodes[0].boot > 1 && state.runs(0).is_some()
            }),
        ]);
    }
    all
}

/// Invariant 1. Nobody else has the lock: a ban of a former boot that is carried out late takes the new boot's away, whose writes fail
/// then, as its agent finds.
fn has_right(state: &State, node: usize) -> bool {
    let Some(epoch) = state.runs(node) else { return true };
    let boot = state.nodes[node].boot;
    let me = u8::try_from(node).unwrap_or(u8::MAX);
    let was_given = state.orders[node].iter().flatten().any(|right| right.epoch == epoch && right.boot == boot);
    was_given && state.share.owner == Some((epoch, me, boot)) && state.share.lock.is_none_or(|lock| lock == (me, boot))
}

/// Invariant 2: the center knows whose every copy is that may still write.
fn is_known(state: &State, node: usize) -> bool {
    let Some(epoch) = state.runs(node) else { return true };
    let boot = state.nodes[node].boot;
    state.center.holder.is_some_and(|holder| (usize::from(holder.node), holder.boot, holder.epoch) == (node, boot, epoch))
}

/// Invariant 3.
fn is_intended(state: &State, node: usize) -> bool {
    let (Shut::Dropped(boot) | Shut::Gone(boot)) = state.share.shut[node] else { return true };
    state.center.bans[node].is_some_and(|ban| ban.boot == boot) || bit(state.center.former[node], boot)
}

/// Invariant 4.
fn is_out(state: &State, node: usize) -> bool {
    let machine = &state.nodes[node];
    !machine.is_on || !bit(state.history.fenced[node], machine.boot) || state.share.shut[node] != Shut::Open
}
