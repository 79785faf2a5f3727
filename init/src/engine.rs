//! The event loop of PID 1, the same for a node, an installation and a rescue: it waits, hands what happened to the pure parts
//! (`supervisor`, `shutdown`), and carries out what they say. It does no work of its own that could take long.

use std::{convert::Infallible, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use lodge_model::{
    initproto::{Cause, Down, Line, Request},
    paths,
};
use lodge_sys::{
    module::Modules,
    power, process,
    signal::{Signal, Signals},
    uevent::Uevents,
};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

mod buttons;
mod children;
mod console_shell;
mod going_down;
mod output;
mod poller;
mod server;
mod shells;

use self::{
    buttons::Buttons,
    children::Children,
    console_shell::ConsoleShell,
    going_down::GoingDown,
    poller::{Poller, Source},
    server::Server,
    shells::Shells,
};
use crate::{
    log,
    services::{Ready, Service},
    supervisor::{Action, Event, Supervisor, Unit},
    vouched::Vouched,
    watchdog,
};

/// What the engine is to run.
#[derive(Debug, Default)]
pub struct Setup {
    /// Services.
    pub services: Vec<&'static Service>,
    /// Where their logs go, beside the kernel's log.
    pub log_dir: Option<PathBuf>,
    /// For a machine without udev: the modules of devices that come.
    pub modules: Option<Modules>,
    /// The kernel's command line, which may ask for a shell on a serial port.
    pub command_line: Option<String>,
    /// Offer shells on the consoles, after this text.
    pub rescue: Option<String>,
    /// Restart the machine then, unless somebody has come.
    pub restart_at: Option<Duration>,
}

/// All that PID 1 looks after.
#[derive(Debug)]
pub struct Engine {
    poller: Poller,
    signals: Signals,
    ready_paths: Option<Inotify>,
    services: Vec<&'static Service>,
    supervisor: Supervisor,
    children: Children,
    server: Option<Server>,
    buttons: Option<Buttons>,
    devices: Option<(Uevents, Modules)>,
    shells: Option<Shells>,
    console_shell: Option<ConsoleShell>,
    restart_at: Option<Duration>,
    going_down: Option<GoingDown>,
    vouched: Vouched,
}

/// Signals that mean something to PID 1. The last three are what busybox's `reboot`, `halt` and `poweroff` send it.
const SIGNALS: [Signal; 6] =
    [Signal::SIGCHLD, Signal::SIGINT, Signal::SIGPWR, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

impl Engine {
    /// Get ready. Only what nothing works without is an error; anything else is told and left out.
    pub fn new(setup: Setup) -> Result<Self> {
        let poller = Poller::new()?;
        let signals = Signals::block(&SIGNALS)?;
        poller.add(&signals, Source::Signals)?;
        let optional = |what: &str, error: &anyhow::Error| log::warning(&format!("{what}: {error:#}"));
        if let Err(error) = power::catch_ctrl_alt_del() {
            optional("Ctrl-Alt-Del resets the machine at once", &error);
        }
        let server = Server::listen(paths::INIT_SOCKET.as_ref(), &poller);
        let server = server.inspect_err(|error| optional("nobody can call init", error)).ok();
        let buttons = Buttons::watch(&poller).inspect_err(|error| optional("the power button does nothing", error)).ok();
        let ready_paths = watch_ready_paths(&setup.services, &poller);
        let ready_paths = ready_paths.inspect_err(|error| optional("services are not seen to become ready", error)).ok();
        let devices = setup.modules.map(|modules| watch_devices(modules, &poller));
        let devices = devices.transpose().inspect_err(|error| optional("new devices get no driver", error)).ok().flatten();
        let console_shell = setup.command_line.map(|words| ConsoleShell::start(&words)).transpose();
        let console_shell =
            console_shell.inspect_err(|error| optional("no shell on the serial port", error)).ok().flatten().flatten();
        Ok(Self {
            supervisor: Supervisor::new(&setup.services, log::uptime()),
            children: Children::new(setup.log_dir),
            shells: setup.rescue.map(|text| Shells::open(&text, &poller)),
            console_shell,
            restart_at: setup.restart_at,
            services: setup.services,
            going_down: None,
            vouched: Vouched::default(),
            poller,
            signals,
            ready_paths,
            server,
            buttons,
            devices,
        })
    }

    /// Run until the machine goes down.
    pub fn run(mut self) -> Result<Infallible> {
        loop {
            watchdog::pulse();
            self.feed(Event::Tick);
            self.restart_if_nobody_came();
            self.restart_if_nobody_vouches()?;
            self.go_down_further()?;
            for source in self.poller.wait(self.patience())? {
                self.handle(source);
            }
        }
    }

    /// How long nothing has to be done.
    fn patience(&self) -> Duration {
        let going_down = self.going_down.as_ref().and_then(GoingDown::next);
        let vouched = self.vouched.next().filter(|_| self.going_down.is_none());
        let deadlines = [self.supervisor.next(), watchdog::next(), self.restart_at, going_down, vouched];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(Duration::from_secs(3600), |next| next.saturating_sub(log::uptime()))
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Listener => {
                if let Some(server) = &mut self.server {
                    server.accept(&self.poller);
                }
            }
            Source::Client(id) => self.answer(id),
            Source::Output(id) => self.children.listen(id, &self.poller),
            Source::ReadyPaths => self.look_for_paths(),
            Source::InputDevices => {
                if let Some(buttons) = &mut self.buttons {
                    buttons.look(&self.poller);
                }
            }
            Source::Button(number) => {
                if self.buttons.as_mut().is_some_and(|buttons| buttons.was_pressed(number)) {
                    self.shut_down(Down::Poweroff, Cause::Button);
                }
            }
            Source::Devices => self.load_drivers(),
            Source::Console(id) => {
                if self.shells.as_mut().is_some_and(|shells| shells.typed(id, &self.poller)) {
                    self.restart_at = None;
                }
            }
        }
    }

    fn take_signals(&mut self) {
        loop {
            match self.signals.next() {
                Ok(Some(Signal::SIGCHLD)) => self.reap(),
                Ok(Some(Signal::SIGINT)) => self.shut_down(Down::Reboot, Cause::CtrlAltDel),
                Ok(Some(Signal::SIGPWR)) => self.shut_down(Down::Poweroff, Cause::Power),
                Ok(Some(Signal::SIGTERM)) => self.shut_down(Down::Reboot, Cause::Request),
                Ok(Some(Signal::SIGUSR1)) => self.shut_down(Down::Halt, Cause::Request),
                Ok(Some(Signal::SIGUSR2)) => self.shut_down(Down::Poweroff, Cause::Request),
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => return log::error(&format!("{error:#}")),
            }
        }
    }

    /// Every process that ended: a service's, a phase's, a shell, or somebody's orphan, whose end is told.
    fn reap(&mut self) {
        while let Some(ended) = process::reap() {
            if self.going_down.as_mut().is_some_and(|going_down| going_down.ended(ended)) {
                continue;
            }
            if self.going_down.is_none() && ConsoleShell::ended(&mut self.console_shell, ended.pid) {
                continue;
            }
            if self.supervisor.owner(ended.pid).is_some() {
                self.feed(Event::Exited(ended));
            } else if !self.shells.as_mut().is_some_and(|shells| shells.ended(ended.pid, &self.poller))
                && let Some(server) = &mut self.server
            {
                server.publish(&Line::Exit { pid: ended.pid, status: ended.status }, &self.poller);
            }
        }
    }

    /// Hand an event to the supervisor and carry out what it says, until it says no more.
    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.supervisor.handle(log::uptime(), event) {
                events.extend(self.act(action));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(unit) => Some(self.start(unit, false)),
            Action::RunStop(unit) => Some(self.start(unit, true)),
            Action::Terminate(_, pid) => {
                if let Err(error) = process::kill(pid, Signal::SIGTERM) {
                    log::warning(&format!("{error:#}"));
                }
                None
            }
            Action::KillGroup(unit) => {
                if let Some(service) = self.supervisor.service(unit) {
                    self.children.kill_group(service);
                }
                None
            }
            Action::GoDown(down) => {
                self.shut_down(down, Cause::Request);
                None
            }
            Action::Say(level, text) => {
                log::log("init", level, &text);
                None
            }
        }
    }

    fn start(&mut self, unit: Unit, is_stop: bool) -> Event {
        let Some(service) = self.supervisor.service(unit) else { return Event::Tick };
        log::info(&format!("{} {}", if is_stop { "undoing" } else { "starting" }, service.name));
        let spawned = match is_stop {
            false => self.children.start(service, &self.poller),
            true => self.children.start_stop(service, &self.poller),
        };
        match spawned {
            Ok(pid) => Event::Spawned(unit, pid),
            Err(error) => {
                log::error(&format!("{}: {error:#}", service.name));
                Event::NotSpawned(unit)
            }
        }
    }

    fn look_for_paths(&mut self) {
        if let Some(inotify) = &self.ready_paths {
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        for (unit, path) in self.supervisor.awaiting_path() {
            if std::path::Path::new(path).exists() {
                self.feed(Event::Ready(unit));
            }
        }
    }

    fn load_drivers(&mut self) {
        let Some((uevents, modules)) = &mut self.devices else { return };
        while let Ok(Some(event)) = uevents.next() {
            if event.action == "add"
                && let Some(modalias) = event.modalias
            {
                for error in modules.load_for(&modalias) {
                    log::warning(&format!("{error:#}"));
                }
            }
        }
    }

    fn answer(&mut self, id: u32) {
        let requests = self.server.as_mut().map(|server| server.requests(id, &self.poller)).unwrap_or_default();
        for request in requests {
            let line = match request {
                Ok(request) => self.carry_out(id, request),
                Err(error) => Line::Error(error.to_string()),
            };
            self.tell(id, &line);
        }
    }

    fn carry_out(&mut self, id: u32, request: Request) -> Line {
        match request {
            Request::Shutdown(down) => self.shut_down(down, Cause::Request),
            Request::Proceed => match &mut self.going_down {
                Some(going_down) => going_down.proceed(),
                None => return Line::Error("the machine is not going down".into()),
            },
            Request::Hold(seconds) => match &mut self.going_down {
                Some(going_down) => going_down.hold(seconds),
                None => return Line::Error("the machine is not going down".into()),
            },
            Request::Vouch(word) => self.vouched.take(log::uptime(), word),
            Request::Status => {
                for status in self.supervisor.status() {
                    let (name, state) = (status.name.to_owned(), status.state.to_owned());
                    self.tell(id, &Line::Service { name, state, pid: status.pid, restarts: status.restarts });
                }
            }
            Request::Restart(name) => match self.supervisor.find(&name) {
                Some(unit) => self.feed(Event::Restart(unit)),
                None => return Line::Error(format!("there is no service {name:?}")),
            },
            Request::Subscribe => self.subscribe(id),
        }
        Line::Ok
    }

    fn subscribe(&mut self, id: u32) {
        let Some(server) = &mut self.server else { return };
        server.subscribe(id, &self.poller);
        // One who comes while the machine goes down has to know.
        if let Some(line) = self.going_down.as_ref().and_then(GoingDown::announcement) {
            server.send(id, &line, &self.poller);
        }
    }

    fn tell(&mut self, id: u32, line: &Line) {
        if let Some(server) = &mut self.server {
            server.send(id, line, &self.poller);
        }
    }

    /// Its disks are somebody else's, or nobody knows: nothing is stopped in order or written back, for which the share would be needed. A
    /// machine that is going down already does so within its own limits.
    fn restart_if_nobody_vouches(&self) -> Result<()> {
        if self.going_down.is_some() || !self.vouched.is_over(log::uptime()) {
            return Ok(());
        }
        log::error("nobody vouches for the environments of this node: restarting the machine at once");
        match power::go_down(Down::Reboot)? {}
    }

    fn restart_if_nobody_came(&mut self) {
        if self.restart_at.is_some_and(|at| log::uptime() >= at) {
            self.restart_at = None;
            log::notice("nobody came to the console: restarting");
            self.shut_down(Down::Reboot, Cause::Request);
        }
    }
}

fn watch_ready_paths(services: &[&'static Service], poller: &Poller) -> Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("opening an inotify")?;
    for service in services {
        if let Ready::PathExists(path) = service.ready
            && let Some(dir) = std::path::Path::new(path).parent()
        {
            let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            inotify.add_watch(dir, changes).with_context(|| format!("watching {}", dir.display()))?;
        }
    }
    poller.add(std::os::fd::AsFd::as_fd(&inotify), Source::ReadyPaths)?;
    Ok(inotify)
}

fn watch_devices(modules: Modules, poller: &Poller) -> Result<(Uevents, Modules)> {
    let uevents = Uevents::open()?;
    poller.add(&uevents, Source::Devices)?;
    Ok((uevents, modules))
}
