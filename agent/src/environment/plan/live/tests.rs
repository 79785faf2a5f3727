//! Live moves of a worker on a fake node.

use lodge_model::environment::order::{Checkpoint, State, Want};

use crate::environment::fake::Cut;
use crate::environment::stage::{ID, Stage, order};

fn running(epoch: u64) -> Stage {
    let mut stage = Stage::new();
    stage.order(Some(order(Want::Running, epoch)));
    stage.act();
    stage.steps();
    stage
}

fn suspended(mut stage: Stage, epoch: u64) -> Stage {
    stage.order(Some(order(Want::Suspended, epoch)));
    stage.act();
    stage
}

fn checkpoint(stage: &Stage) -> Option<Checkpoint> {
    stage.report.as_ref().and_then(|report| report.checkpoint.clone())
}

/// The same on another node, with what the share has.
fn elsewhere(share: Option<u64>) -> Stage {
    let mut stage = Stage::new();
    stage.fake.inner().share.entry(ID).or_default().checkpoint = share;
    stage.fake.inner().share.entry(ID).or_default().is_made = true;
    let resumes = lodge_model::environment::order::Assignment { resume: Some(1), ..order(Want::Running, 2) };
    stage.order(Some(resumes));
    stage
}

#[test]
fn suspended_it_is_kept_and_let_go_of() {
    let stage = suspended(running(1), 1);
    assert_eq!(stage.steps(), ["checkpoint", "delete", "detach", "unmount", "release"]);
    assert_eq!((stage.state(), checkpoint(&stage)), (Some(State::Released), Some(Checkpoint::Kept)));
    assert_eq!(stage.fake.inner().share[&ID].checkpoint, Some(1));
}

#[test]
fn one_that_cannot_be_kept_is_shut_down_and_the_reason_told() {
    let stage = running(1);
    stage.fake.inner().failing.insert("checkpoint", "a namespace of its own".into());
    let stage = suspended(stage, 1);
    assert_eq!(stage.steps(), ["checkpoint", "stop", "delete", "detach", "unmount", "release"]);
    assert_eq!(stage.state(), Some(State::Released));
    assert!(matches!(checkpoint(&stage), Some(Checkpoint::Failed { why }) if why.contains("of its own")));
}

#[test]
fn an_agent_that_is_killed_in_it_finds_out_what_has_become_of_it() {
    for (cut, kept, first) in [(Cut::Before, false, "stop"), (Cut::Within, false, "stop"), (Cut::After, true, "delete")] {
        let stage = running(1);
        stage.cut(0, cut);
        let stage = suspended(stage, 1);
        assert_eq!(stage.steps()[..2], ["checkpoint", first], "{cut:?}");
        assert_eq!(stage.state(), Some(State::Released));
        assert_eq!(checkpoint(&stage) == Some(Checkpoint::Kept), kept, "{cut:?}");
    }
}

#[test]
fn one_that_runs_on_though_it_was_kept_is_never_gone_on_from() {
    let mut stage = running(1);
    stage.fake.inner().idling.insert("checkpoint");
    stage.order(Some(order(Want::Suspended, 1)));
    stage.turn();
    stage.fake.inner().share.get_mut(&ID).unwrap().checkpoint = Some(1);
    stage.fake.inner().here.get_mut(&ID).unwrap().kept = Some(1);
    stage.kill_agent();
    stage.act();
    assert_eq!(stage.steps()[..3], ["checkpoint", "forget", "stop"]);
    assert!(matches!(checkpoint(&stage), Some(Checkpoint::Failed { .. })));
    assert_eq!(stage.fake.inner().share[&ID].checkpoint, None);
}

#[test]
fn elsewhere_it_goes_on() {
    let mut stage = elsewhere(Some(1));
    stage.act();
    assert_eq!(stage.steps(), ["fetch-template", "take-disk", "check-disk", "mount", "restore"]);
    assert!(matches!(stage.state(), Some(State::Running { .. })));
    assert_eq!((checkpoint(&stage), stage.fake.inner().resumed), (Some(Checkpoint::Resumed), 1));
    // It reboots later: it is started then.
    stage.fake.end(ID, 1);
    stage.act();
    assert_eq!(stage.steps(), ["delete", "detach", "create", "network", "start"]);
}

#[test]
fn where_it_cannot_go_on_it_is_started() {
    for share in [None, Some(7)] {
        let mut stage = elsewhere(share);
        stage.act();
        assert_eq!(stage.steps()[4..], ["restore", "create", "network", "start"]);
        assert!(matches!(stage.state(), Some(State::Running { .. })));
        assert!(matches!(checkpoint(&stage), Some(Checkpoint::Failed { .. })));
    }
}

#[test]
fn an_agent_that_is_killed_in_going_on_does_not_try_it_again() {
    let mut stage = elsewhere(Some(1));
    stage.cut(4, Cut::Within);
    stage.act();
    let steps = stage.steps();
    assert_eq!(steps.iter().filter(|step| **step == "restore").count(), 1);
    assert_eq!(steps.last(), Some(&"start"));
    assert_eq!(stage.fake.inner().resumed, 0);
}

#[test]
fn a_new_order_to_start_has_no_use_for_an_old_checkpoint() {
    let mut stage = suspended(running(1), 1);
    stage.steps();
    stage.order(Some(order(Want::Running, 2)));
    stage.act();
    assert!(!stage.steps().contains(&"restore") && stage.fake.inner().share[&ID].checkpoint.is_none());
}
