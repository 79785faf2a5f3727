use super::*;
use lodge_sys::program::Program;
use proptest::prelude::*;

const BARE: Service = Service {
    name: "",
    program: Program::Busybox,
    arguments: &[],
    per_console: None,
    roles: &[],
    after: &[],
    ready: Ready::Started,
    mounts: None,
    stop: None,
    uses_share: false,
    loud: false,
};
static BUS: Service = Service { name: "bus", ready: Ready::PathExists("/bus"), ..BARE };
static SETUP: Service = Service { name: "setup", ready: Ready::Exit(&[0]), stop: Some((Program::Busybox, &[])), ..BARE };
static AGENT: Service = Service { name: "agent", after: &["bus", "setup", "not-here"], ..BARE };
static INSTALLER: Service = Service { name: "installer", ready: Ready::Decides, ..BARE };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn exit(pid: i32, code: i32) -> Event {
    Event::Exited(Ended { pid, status: code << 8 })
}

fn starts(actions: &[Action]) -> Vec<Unit> {
    actions.iter().filter_map(|action| if let Action::Start(unit) = action { Some(*unit) } else { None }).collect()
}

fn states(supervisor: &Supervisor) -> Vec<&'static str> {
    supervisor.status().iter().map(|status| status.state).collect()
}

/// bus and setup started, agent waiting.
fn three() -> Supervisor {
    let mut supervisor = Supervisor::new(&[&BUS, &SETUP, &AGENT], at(0));
    assert_eq!(starts(&supervisor.handle(at(0), Event::Tick)), [0, 1]);
    supervisor.handle(at(0), Event::Spawned(0, 10));
    supervisor.handle(at(0), Event::Spawned(1, 11));
    supervisor
}

#[test]
fn a_service_starts_when_those_before_it_are_ready() {
    let mut supervisor = three();
    assert_eq!(starts(&supervisor.handle(at(1), exit(11, 0))), [0usize; 0]);
    assert_eq!(starts(&supervisor.handle(at(2), Event::Ready(0))), [2]);
    supervisor.handle(at(2), Event::Spawned(2, 12));
    assert_eq!(states(&supervisor), ["running", "done", "running"]);
}

#[test]
fn it_starts_anyway_when_they_take_too_long_and_says_so() {
    let mut supervisor = three();
    supervisor.handle(at(1), exit(11, 0));
    assert_eq!(supervisor.next(), Some(PATIENCE));
    let actions = supervisor.handle(PATIENCE, Event::Tick);
    assert_eq!(starts(&actions), [2]);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Say(Level::Warning, text) if text.contains("bus is not ready")))
    );
}

#[test]
fn pauses_grow_and_a_steady_service_starts_over() {
    let mut supervisor = Supervisor::new(&[&AGENT], at(0));
    let mut now = at(0);
    supervisor.handle(now, Event::Tick);
    let mut pauses = Vec::new();
    for pid in 1..10 {
        supervisor.handle(now, Event::Spawned(0, pid));
        let actions = supervisor.handle(now, exit(pid, 1));
        assert_eq!(actions.first(), Some(&Action::KillGroup(0)));
        let until = supervisor.next().unwrap();
        pauses.push((until - now).as_millis());
        now = until;
        assert_eq!(starts(&supervisor.handle(now, Event::Tick)), [0]);
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    supervisor.handle(now, Event::Spawned(0, 99));
    now += STEADY;
    supervisor.handle(now, exit(99, 0));
    assert_eq!(supervisor.next(), Some(now + FIRST_PAUSE));
    assert_eq!(supervisor.status()[0].restarts, 9);
}

#[test]
fn one_that_is_killed_while_it_works_is_back_at_once_and_one_that_cannot_start_is_not() {
    let pause_after = |ran: Duration| {
        let mut supervisor = Supervisor::new(&[&AGENT], at(0));
        let mut now = at(0);
        supervisor.handle(now, Event::Tick);
        for pid in 1..=20 {
            supervisor.handle(now, Event::Spawned(0, pid));
            now += ran;
            supervisor.handle(now, Event::Exited(Ended { pid, status: 9 }));
            if let Some(until) = supervisor.next().filter(|_| pid < 20) {
                now = until;
                supervisor.handle(now, Event::Tick);
            }
        }
        supervisor.next().unwrap() - now
    };
    assert_eq!(pause_after(STEADY), FIRST_PAUSE);
    assert_eq!(pause_after(STEADY - at(1)), LONGEST_PAUSE);
}

#[test]
fn the_installer_says_how_the_machine_goes_down() {
    for (code, down) in [(0, Some(Down::Reboot)), (10, Some(Down::Poweroff)), (1, None)] {
        let mut supervisor = Supervisor::new(&[&INSTALLER], at(0));
        supervisor.handle(at(0), Event::Tick);
        supervisor.handle(at(0), Event::Spawned(0, 5));
        let actions = supervisor.handle(at(9), exit(5, code));
        let said = actions.iter().find_map(|action| if let Action::GoDown(down) = action { Some(*down) } else { None });
        assert_eq!(said, down);
    }
}

#[test]
fn a_stop_is_asked_then_forced_then_given_up() {
    let mut supervisor = three();
    supervisor.handle(at(1), Event::Freeze);
    assert_eq!(supervisor.handle(at(1), Event::Stop(0)), [Action::Terminate(0, 10)]);
    let actions = supervisor.handle(at(1) + STOP_TIMEOUT, Event::Tick);
    assert!(actions.contains(&Action::KillGroup(0)));
    assert!(!supervisor.is_stopped(0));
    supervisor.handle(at(1) + STOP_TIMEOUT + KILL_TIMEOUT, Event::Tick);
    assert!(supervisor.is_stopped(0));
}

#[test]
fn what_a_finished_one_did_is_undone_by_its_stop_command() {
    let mut supervisor = three();
    supervisor.handle(at(1), exit(11, 0));
    supervisor.handle(at(2), Event::Freeze);
    assert_eq!(supervisor.handle(at(2), Event::Stop(1)), [Action::RunStop(1)]);
    supervisor.handle(at(2), Event::Spawned(1, 40));
    assert!(!supervisor.is_stopped(1));
    supervisor.handle(at(3), exit(40, 0));
    assert!(supervisor.is_stopped(1));
}

#[test]
fn a_restart_stops_and_starts() {
    let mut supervisor = three();
    assert_eq!(supervisor.handle(at(1), Event::Restart(0)), [Action::Terminate(0, 10)]);
    let actions = supervisor.handle(at(2), exit(10, 0));
    assert_eq!(starts(&actions), [0]);
}

#[test]
fn a_restart_of_a_finished_one_undoes_what_it_did_first() {
    let mut supervisor = three();
    supervisor.handle(at(1), exit(11, 0));
    assert_eq!(supervisor.handle(at(2), Event::Restart(1)), [Action::RunStop(1)]);
    supervisor.handle(at(2), Event::Spawned(1, 40));
    let actions = supervisor.handle(at(3), exit(40, 0));
    assert_eq!(starts(&actions), [1]);
    // Where the stop command cannot be run, it is started all the same.
    supervisor.handle(at(3), Event::Spawned(1, 41));
    supervisor.handle(at(4), exit(41, 0));
    supervisor.handle(at(5), Event::Restart(1));
    assert_eq!(starts(&supervisor.handle(at(5), Event::NotSpawned(1))), [1]);
}

#[test]
fn nothing_starts_once_the_machine_goes_down() {
    let mut supervisor = three();
    supervisor.handle(at(1), Event::Freeze);
    let actions = supervisor.handle(at(2), exit(10, 1));
    assert!(starts(&actions).is_empty());
    supervisor.handle(at(2), Event::Restart(0));
    assert!(starts(&supervisor.handle(at(500), Event::Tick)).is_empty());
    assert_eq!(states(&supervisor), ["stopped", "starting", "stopped"]);
}

#[derive(Clone, Debug)]
enum Step {
    Tick(u16),
    Exit(prop::sample::Index, u8),
    Signal(prop::sample::Index),
    Ready(usize),
    Restart(usize),
    Stop(usize),
    Freeze,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u16..20_000).prop_map(Step::Tick),
        4 => (any::<prop::sample::Index>(), 0u8..12).prop_map(|(which, code)| Step::Exit(which, code)),
        1 => any::<prop::sample::Index>().prop_map(Step::Signal),
        2 => (0usize..4).prop_map(Step::Ready),
        1 => (0usize..4).prop_map(Step::Restart),
        1 => (0usize..4).prop_map(Step::Stop),
        1 => Just(Step::Freeze),
    ]
}

/// An engine in miniature: carries actions out, remembers which processes run.
struct World {
    supervisor: Supervisor,
    now: Duration,
    next_pid: i32,
    running: Vec<(Unit, i32)>,
    frozen: bool,
}

impl World {
    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.supervisor.handle(self.now, event) {
                match action {
                    Action::Start(unit) | Action::RunStop(unit) => {
                        if matches!(action, Action::Start(_)) {
                            assert!(!self.frozen, "started while going down");
                        }
                        assert!(self.running.iter().all(|(other, _)| *other != unit), "two processes of one service");
                        self.next_pid += 1;
                        self.running.push((unit, self.next_pid));
                        events.push(Event::Spawned(unit, self.next_pid));
                    }
                    Action::Terminate(unit, pid) => assert!(self.running.contains(&(unit, pid)), "a signal to a stranger"),
                    Action::KillGroup(_) | Action::GoDown(_) | Action::Say(..) => {}
                }
            }
        }
    }

    fn end(&mut self, which: prop::sample::Index, status: i32) {
        if self.running.is_empty() {
            return;
        }
        let (_, pid) = self.running.remove(which.index(self.running.len()));
        self.feed(Event::Exited(Ended { pid, status }));
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(steps in proptest::collection::vec(step(), 0..80)) {
        let supervisor = Supervisor::new(&[&BUS, &SETUP, &AGENT, &INSTALLER], at(0));
        let mut world = World { supervisor, now: at(0), next_pid: 100, running: Vec::new(), frozen: false };
        world.feed(Event::Tick);
        for step in steps {
            match step {
                Step::Tick(millis) => {
                    world.now += Duration::from_millis(millis.into());
                    world.feed(Event::Tick);
                }
                Step::Exit(which, code) => world.end(which, i32::from(code) << 8),
                Step::Signal(which) => world.end(which, 9),
                Step::Ready(unit) => world.feed(Event::Ready(unit)),
                Step::Restart(unit) => world.feed(Event::Restart(unit)),
                // A process that hangs in the kernel and is given up on would be a second one by design: not part of this world.
                Step::Stop(unit) => world.feed(Event::Stop(unit)),
                Step::Freeze => {
                    world.frozen = true;
                    world.feed(Event::Freeze);
                }
            }
            // SIGKILL works in this world: nobody is ever given up on.
            while let Some(next) = world.supervisor.next().filter(|next| *next <= world.now) {
                prop_assert!(next <= world.now);
                world.feed(Event::Tick);
            }
            let killed: Vec<(Unit, i32)> = world.running.iter().copied().filter(|(unit, _)| {
                matches!(world.supervisor.entries[*unit].state, State::Killed { .. })
            }).collect();
            for (unit, pid) in killed {
                world.running.retain(|one| *one != (unit, pid));
                world.feed(Event::Exited(Ended { pid, status: 9 }));
            }
        }
        // And it can always be brought to an end.
        world.frozen = true;
        world.feed(Event::Freeze);
        for unit in (0..4).rev() {
            world.feed(Event::Stop(unit));
        }
        while let Some((unit, pid)) = world.running.pop() {
            world.feed(Event::Exited(Ended { pid, status: 15 }));
            prop_assert!(world.supervisor.is_stopped(unit) || !world.running.is_empty());
        }
        prop_assert!((0..4).all(|unit| world.supervisor.is_stopped(unit)));
        prop_assert_eq!(world.supervisor.next(), None);
    }
}
