use super::*;
use crate::{
    attach, probe,
    tests::spaces::{Lab, Space, spec},
};

#[test]
fn environments_cannot_be_found_while_they_are_isolated_and_nothing_else_changes() {
    let Some(lab) = Lab::bridged() else { return };
    let other = lab.second_node();
    let environment = Space::new();
    let (link, pid) = (spec(5), environment.tid);
    let address = link.addresses[0].ip;
    lab.node.run(move || attach(pid, &link, None).unwrap());
    let is_found = move || !probe(&[address]).unwrap().is_empty();
    let isolate = |isolated| lab.node.run(move || (set_isolated(isolated).unwrap(), is_isolated().unwrap()).1);
    assert!(other.run(is_found));
    assert!(!isolate(false) && other.run(is_found));
    assert!(isolate(true) && isolate(true));
    assert!(!other.run(is_found));
    let node = crate::tests::spaces::NODE.into();
    assert!(!other.run(move || probe(&[node]).unwrap()).is_empty(), "the node itself stays on the network");
    assert!(!isolate(false));
    assert!(other.run(is_found));
}
