//! Moves with processes.

use lodge_model::environment::order::Checkpoint;
use lodge_model::live::{Capability, MoveBy, Probe};

use super::*;
use crate::environments::drain::way::Way;
use crate::environments::records::{Asked, Move};

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
            by: MoveBy::Live,
            way: Way::default(),
            live: None,
        });
        play.settle();
        assert_eq!(play.only().place.as_ref().unwrap().want, Want::Suspended);
        play
    }

    /// Both nodes can keep processes, and nothing is seen that speaks against it.
    fn can(&mut self) {
        let id = self.only().id;
        for room in &mut self.cluster.rooms {
            room.criu = Some(Capability::default());
            room.probes.insert(id, Probe::Clear);
        }
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
    play.only().moving.as_mut().unwrap().by = MoveBy::Live;
    play.drain().deadline = Some(at(0));
    play.settle();
    assert_eq!(play.only().place.as_ref().unwrap().want, Want::Stopped);
    assert_eq!(play.only().moving.as_ref().unwrap().way.because, "there is no time left");
}

#[test]
fn a_drain_shows_who_has_kept_its_processes() {
    let mut play = Play::new(1, &[2000]);
    play.can();
    play.drain();
    play.settle();
    let item = play.stand().items.values().next().unwrap();
    assert_eq!((item.way.as_str(), item.because.as_str()), ("live", "nothing speaks against it"));
    play.says(Some(Checkpoint::Kept));
    play.says(Some(Checkpoint::Resumed));
    assert_eq!(play.verdicts(), [Verdict::MovedLive]);
}

#[test]
fn a_drain_goes_live_by_itself_only_where_it_is_known_to_go() {
    let mut play = Play::new(1, &[2000]);
    play.drain();
    play.settle();
    assert_eq!(play.only().place.as_ref().unwrap().want, Want::Stopped);
    let moving = play.only().moving.clone().unwrap();
    assert_eq!((moving.way.is_live, moving.way.because.as_str()), (false, "node1 has not looked at its processes yet"));

    let mut play = Play::new(1, &[2000]);
    play.can();
    play.drain().cause = Cause::Ups;
    play.settle();
    assert_eq!(play.only().moving.as_ref().unwrap().way.because, "there is no time to lose");
}

#[test]
fn what_ended_in_the_middle_is_told_and_counts() {
    let mut play = Play::suspended();
    play.says(Some(Checkpoint::Kept));
    play.says(failed("other processors"));
    let done = play.only().moves.last().unwrap().not_live.clone().unwrap();
    assert_eq!((done.why.as_str(), done.ended), ("other processors", true));
    play.can();
    let drain = Drain { node: node_id(2), boot: Some(boot_id(2)), ..play.drain().clone() };
    play.cluster.drains = [(node_id(2), drain)].into();
    play.settle();
    let because = play.only().moving.as_ref().unwrap().way.because.clone();
    assert!(because.starts_with("it did not go on the last time (other processors)"), "{because}");
}
