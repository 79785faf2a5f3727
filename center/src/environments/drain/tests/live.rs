//! Moves with processes.

use lodge_model::environment::order::Checkpoint;

use super::*;
use crate::environments::records::{Asked, Live, Move};

impl Play {
    /// One environment that is to move live, told to keep its processes.
    fn suspended() -> Self {
        let mut play = Self::new(1, &[2000, 2000]);
        let now = at(play.now);
        play.only().moving = Some(Move {
            from: node_id(1),
            from_name: "node1".into(),
            epoch: 1,
            to: None,
            asked: Some(Asked { to: None }),
            planned: now,
            begun: None,
            released: None,
            waits: String::new(),
            live: Some(Live::Asked),
        });
        play.settle();
        assert_eq!(play.only().place.as_ref().unwrap().want, Want::Suspended);
        play
    }

    fn only(&mut self) -> &mut Environment {
        self.cluster.environments.values_mut().next().unwrap()
    }

    /// Its node does as it is told, and says this of a checkpoint.
    fn says(&mut self, checkpoint: Option<Checkpoint>) {
        let is_released = self.only().place.as_ref().unwrap().want != Want::Running;
        let state = if is_released { State::Released } else { State::Running { since: 1 } };
        let said = report(self.only(), state);
        self.only().report = Some(lodge_model::environment::order::Report { checkpoint, ..said });
        self.settle();
    }

    fn resumes(&mut self) -> Option<u64> {
        moves::resumes(self.only())
    }

    /// The way and the note of the last move.
    fn done(&mut self) -> (String, String) {
        let done = self.only().moves.last().unwrap().clone();
        (done.way, done.note)
    }
}

fn failed(why: &str) -> Option<Checkpoint> {
    Some(Checkpoint::Failed { why: why.into() })
}

#[test]
fn what_is_kept_goes_on_in_the_next_epoch() {
    let mut play = Play::suspended();
    assert_eq!(play.resumes(), None);
    play.says(Some(Checkpoint::Kept));
    assert_eq!((play.only().epoch, play.resumes()), (2, Some(1)));
    play.says(Some(Checkpoint::Resumed));
    assert_eq!(play.done(), ("live".into(), String::new()));
    assert_eq!((play.resumes(), play.only().epoch), (None, 2));
}

#[test]
fn what_cannot_be_kept_or_cannot_go_on_has_moved_by_a_restart() {
    let mut play = Play::suspended();
    play.says(failed("docker (process 7) is in a namespace of its own"));
    assert_eq!((play.only().epoch, play.resumes()), (2, None));
    play.says(None);
    let (way, note) = play.done();
    assert!(way == "restart" && note.starts_with("not live: docker"), "{note}");

    let mut play = Play::suspended();
    play.says(Some(Checkpoint::Kept));
    play.says(failed("other processors"));
    assert_eq!(play.done(), ("restart".into(), "not live: other processors".into()));
}

#[test]
fn a_checkpoint_is_of_no_use_after_any_other_epoch() {
    let mut play = Play::suspended();
    play.says(Some(Checkpoint::Kept));
    // The target gives it back, or ends: whoever comes next starts it.
    let said = report(play.only(), State::Released);
    play.only().report = Some(said);
    play.settle();
    assert_eq!((play.only().epoch, play.resumes()), (3, None));
    play.says(None);
    assert_eq!(play.done().0, "restart");

    // Stopped in between, it is started anew.
    let mut play = Play::suspended();
    play.only().goal = Goal::Stopped;
    play.says(Some(Checkpoint::Kept));
    assert!(play.only().place.is_none());
    play.only().goal = Goal::Running;
    play.settle();
    assert_eq!((play.only().epoch, play.resumes()), (2, None));
}

#[test]
fn a_drain_at_its_deadline_takes_no_time_for_it() {
    let mut play = Play::new(1, &[]);
    play.drain();
    play.settle();
    play.only().moving.as_mut().unwrap().live = Some(Live::Asked);
    play.drain().deadline = Some(at(0));
    play.settle();
    assert_eq!(play.only().place.as_ref().unwrap().want, Want::Stopped);
}

#[test]
fn a_drain_shows_who_has_kept_its_processes() {
    let mut play = Play::new(1, &[2000]);
    play.drain();
    play.cluster.settings.moves_per_source = 0;
    play.settle();
    play.only().moving.as_mut().unwrap().live = Some(Live::Asked);
    play.cluster.settings.moves_per_source = 1;
    play.settle();
    play.says(Some(Checkpoint::Kept));
    play.says(Some(Checkpoint::Resumed));
    assert_eq!(play.verdicts(), [Verdict::MovedLive]);
}
