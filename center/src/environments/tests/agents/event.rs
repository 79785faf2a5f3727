//! What happens to played agents, to their network and to those who ask for something.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Everything that happens on a good network, in one go.
    Beat(usize),
    Speak(usize),
    Arrive(usize, bool),
    Answer(usize, bool),
    Act(usize, u32),
    EndsByItself(usize),
    PowersOff(usize),
    Boots(usize),
    Leaves(usize),
    Create(u32),
    Ask(u32, u8),
    Move(u32),
    Drain(usize, bool),
    Undrain(usize),
    ConfirmOff(usize),
    /// The share node speaks; its orders arrive or are lost.
    Serves(bool),
    /// For a while a node says nothing while all others do.
    Quiet(usize),
    /// A node goes on with its heartbeat file alone.
    Marks(usize),
    Look,
    Plan,
    Time(i64),
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let node = 0..2usize;
    let which = 0..3u32;
    prop_oneof![
        16 => node.clone().prop_map(Event::Beat),
        4 => node.clone().prop_map(Event::Speak),
        4 => (node.clone(), any::<bool>()).prop_map(|(node, newest)| Event::Arrive(node, newest)),
        4 => (node.clone(), any::<bool>()).prop_map(|(node, newest)| Event::Answer(node, newest)),
        4 => (node.clone(), which.clone()).prop_map(|(node, at)| Event::Act(node, at)),
        1 => node.clone().prop_map(Event::EndsByItself),
        1 => node.clone().prop_map(Event::PowersOff),
        2 => node.clone().prop_map(Event::Boots),
        1 => node.clone().prop_map(Event::Leaves),
        3 => which.clone().prop_map(Event::Create),
        4 => (which.clone(), 0..9u8).prop_map(|(which, what)| Event::Ask(which, what)),
        2 => which.prop_map(Event::Move),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, by_itself)| Event::Drain(node, by_itself)),
        1 => node.clone().prop_map(Event::Undrain),
        1 => node.clone().prop_map(Event::ConfirmOff),
        3 => any::<bool>().prop_map(Event::Serves),
        2 => node.clone().prop_map(Event::Quiet),
        1 => node.prop_map(Event::Marks),
        2 => Just(Event::Look),
        8 => Just(Event::Plan),
        3 => (1..40i64).prop_map(Event::Time),
    ]
}
