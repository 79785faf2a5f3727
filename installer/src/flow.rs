//! The install flow, top down. Reads like the list in ARCHITECTURE.md; every failure is told, and the flow starts again from the
//! facts when something changes or after a pause, so a mended fault goes on by itself.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use lodge_client::Center;
use lodge_model::{
    answer::{CenterAnswer, Then},
    api::MachineEvent,
    bundle::Manifest,
    facts::{Disk, Facts, Signature},
    initproto::{EXIT_POWEROFF, EXIT_REBOOT},
    node::CenterRef,
    paths,
};
use lodge_sys::uevent::Uevents;
use tokio::runtime::{Builder, Runtime};

use crate::{
    answer::{self, Gathered},
    apply::{self, Apply, Enrolment, Host},
    boot_option,
    bundle::{self, ReleaseKey, Source},
    decision::{self, Word},
    installed,
    medium::{self, Medium},
    options::Options,
    plan::{self, Goal, Permission, Plan},
    report::Report,
    uplink::Network,
};

/// Pauses between tries; a device that comes or goes ends them.
const PAUSE_MIN: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Exit status of a dry run that found that it would fail.
const EXIT_FAILED: i32 = 1;

/// How a try ended.
enum Outcome {
    /// Installed.
    Installed(Then),
    /// The disk is to be started.
    BootDisk,
    /// The plan was printed.
    Planned,
    /// Nothing can be done yet.
    Wait(String),
    /// Something changed: at once again.
    Again,
}

/// What one machine was found to be.
struct Machine {
    /// With disks as they may be chosen.
    facts: Facts,
    /// Disks with everything that is on them.
    disks: Vec<Disk>,
    media: Vec<Medium>,
}

/// What is to be done, and by whose word.
struct Order {
    goal: Goal,
    center: Option<(Center, CenterAnswer)>,
    source: Source,
}

/// What lasts from one try to the next.
struct Flow {
    options: Options,
    report: Report,
    runtime: Runtime,
    network: Option<Network>,
}

/// Install this machine. Returns the exit status.
pub fn run(options: Options, report: Report) -> Result<i32> {
    // With a worker of its own: the outbox uses the same connections, and they must be driven while this thread writes a disk.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().context("starting a runtime")?;
    let mut flow = Flow { options, report, runtime, network: None };
    let mut pause = PAUSE_MIN;
    loop {
        let dry_run = flow.options.dry_run;
        // Opened before the look: a disk or medium that comes during it is not missed.
        let since_look = Uevents::open()?;
        match flow.attempt(&since_look) {
            Ok(Outcome::Installed(Then::Reboot) | Outcome::BootDisk) => return Ok(EXIT_REBOOT),
            Ok(Outcome::Installed(Then::Poweroff)) => return Ok(EXIT_POWEROFF),
            Ok(Outcome::Planned) if dry_run => return Ok(EXIT_REBOOT),
            Ok(Outcome::Planned) => {
                flow.report.waiting("this is a dry run and nothing was written; restart without lodge.dry-run to install");
                while !Uevents::open()?.wait(PAUSE_MAX)? {}
            }
            Ok(Outcome::Again) => pause = PAUSE_MIN,
            Ok(Outcome::Wait(reason)) if dry_run => anyhow::bail!(reason),
            Ok(Outcome::Wait(reason)) => {
                flow.report.waiting(&reason);
                pause = wait(&since_look, pause)?;
            }
            Err(error) => {
                flow.report.failed(&error);
                if dry_run {
                    return Ok(EXIT_FAILED);
                }
                // What happened until now may be of its own making.
                pause = wait(&Uevents::open()?, pause)?;
            }
        }
    }
}

/// Wait for a device to come or go, or for the pause to end; the next pause.
fn wait(events: &Uevents, pause: Duration) -> Result<Duration> {
    let news = events.wait(pause)?;
    Ok(if news { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) })
}

impl Flow {
    fn attempt(&mut self, since_look: &Uevents) -> Result<Outcome> {
        let machine = self.look()?;
        let outcome = self.serve(&machine, since_look)?;
        if matches!(outcome, Outcome::Installed(_) | Outcome::BootDisk) {
            medium::eject_discs(machine.media, &mut |line| self.report.note(line));
        }
        Ok(outcome)
    }

    /// Do for this machine what is to be done.
    fn serve(&mut self, machine: &Machine, since_look: &Uevents) -> Result<Outcome> {
        let gathered = self.answers(machine)?;
        let order = match self.order(machine, &gathered, since_look)? {
            Ok(order) => order,
            Err(outcome) => return Ok(outcome),
        };
        let (key, manifest) = self.manifest(&order)?;
        self.report.begin("plan");
        let disk = plan::choose(&machine.facts, &order.goal, now()?)?;
        let found = installed::look(disk)?;
        let plan = plan::make(disk, &order.goal, &found, &manifest)?;
        self.report.end();
        self.report.text(&plan.to_string());
        if self.options.dry_run || gathered.answer.install.dry_run {
            return Ok(Outcome::Planned);
        }
        self.apply(machine, &gathered, order, &plan, key, manifest)?;
        Ok(Outcome::Installed(gathered.answer.install.then))
    }

    /// Facts: hardware, what is on the disks, media.
    fn look(&mut self) -> Result<Machine> {
        self.report.begin("facts");
        let facts = lodge_sys::facts::gather()?;
        let disks = facts.disks.clone();
        let facts = as_choosable(facts, &mut |line| self.report.note(line))?;
        let media = medium::mount_all(&facts, &mut |line| self.report.note(line));
        self.report.end();
        Ok(Machine { facts, disks, media })
    }

    /// Answers, from near to far; the network comes up when the near ones do not suffice.
    fn answers(&mut self, machine: &Machine) -> Result<Gathered> {
        self.report.begin("answer");
        let mut sources = answer::local::sources(&self.options, &machine.facts, &machine.media)?;
        let mut gathered = answer::merge(&sources);
        self.report.end();
        if gathered.offline().is_some() && self.local_bundle(machine).is_some() {
            return Ok(gathered);
        }
        self.report.begin("network");
        let network = match self.options.dry_run {
            // Who only looks, on a machine that may be serving, must not find it on another address afterwards.
            true => Network::present(&machine.facts.nics)?,
            false => Network::ensure(self.network.take(), gathered.answer.network.as_ref(), &mut self.report)?,
        };
        let uplink = network.uplink();
        self.network = Some(network);
        self.report.end();
        if gathered.answer.center.is_none() && gathered.offline().is_none() {
            self.report.begin("answer");
            sources.extend(answer::remote::sources(&uplink, &mut self.report)?);
            gathered = answer::merge(&sources);
            self.report.end();
        }
        Ok(gathered)
    }

    /// What is to be done: by the center's word, or by the hand that put a medium in.
    fn order(&mut self, machine: &Machine, gathered: &Gathered, since_look: &Uevents) -> Result<Result<Order, Outcome>> {
        let answer = &gathered.answer;
        if let Some(rule) = gathered.offline() {
            let source = answer.install.bundle.clone().map(Source::Http).or_else(|| self.local_bundle(machine));
            let Some(source) = source else { return Ok(Err(Outcome::Wait(NO_BUNDLE.to_owned()))) };
            let goal = Goal {
                name: answer.node.name.clone().unwrap_or_else(|| "center".to_owned()),
                roles: answer.node.roles.clone(),
                permission: Permission::InHand { rule: rule.clone(), place: gathered.disk_place.clone() },
            };
            return Ok(Ok(Order { goal, center: None, source }));
        }
        let Some(center_answer) = &answer.center else { return Ok(Err(Outcome::Wait(NO_CENTER.to_owned()))) };
        self.report.begin("decision");
        self.report.note(&format!("the center is {} (from {})", center_answer.url, gathered.center_place));
        let center = decision::connect(center_answer)?;
        let name = answer.node.name.clone();
        let mut look = || as_choosable(lodge_sys::facts::gather()?, &mut |_| {});
        let change = (since_look, &mut look as &mut dyn FnMut() -> Result<Facts>);
        let word = decision::ask((center_answer, &center), &self.runtime, &machine.facts, name, &mut self.report, change)?;
        let ticket = match word {
            Word::LookAgain => return Ok(Err(Outcome::Again)),
            Word::BootDisk => return Ok(Err(self.boot_disk(machine)?)),
            Word::Install(ticket) => ticket,
        };
        self.report.end();
        let source = Source::Http(answer.install.bundle.clone().unwrap_or_else(|| ticket.bundle.clone()));
        let goal = Goal { name: ticket.name.clone(), roles: ticket.roles.clone(), permission: Permission::Ticket(ticket) };
        Ok(Ok(Order { goal, center: Some((center, center_answer.clone())), source }))
    }

    /// The bundle's signed table of contents.
    fn manifest(&mut self, order: &Order) -> Result<(ReleaseKey, Manifest)> {
        self.report.begin("bundle");
        let key = fs::read_to_string(paths::RELEASE_KEY).with_context(|| format!("reading {}", paths::RELEASE_KEY))?;
        let key = ReleaseKey::parse(&key)?;
        let manifest = bundle::manifest(&order.source, &key)?;
        self.report.end();
        Ok((key, manifest))
    }

    fn apply(
        &mut self,
        machine: &Machine,
        gathered: &Gathered,
        order: Order,
        plan: &Plan,
        key: ReleaseKey,
        manifest: Manifest,
    ) -> Result<()> {
        let uplink = self.network.as_ref().map(Network::uplink);
        let enrolment = match (&order.center, &order.goal.permission) {
            (Some((center, answer)), Permission::Ticket(ticket)) => Some(Enrolment {
                center,
                runtime: &self.runtime,
                ticket: (**ticket).clone(),
                center_ref: CenterRef { url: answer.url.clone(), ca: answer.ca.clone() },
                uplink: uplink.context("the network is not up")?,
            }),
            _ => None,
        };
        apply::run(Apply {
            plan,
            machine: machine.facts.machine,
            seen: signatures(&machine.disks, &plan.disk.name),
            report: &mut self.report,
            source: order.source,
            manifest,
            key,
            answer: gathered.answer.clone(),
            network: gathered.answer.network.clone(),
            site: gathered.answer.site.clone(),
            enrolment,
            host: Host::default(),
        })?;
        self.report.installed(MachineEvent::Installed {
            version: plan.version.clone(),
            slot: plan.slot,
            disk_serial: plan.disk.serial.clone(),
        });
        Ok(())
    }

    /// The center wants nothing: start the disk. A request to come back here is withdrawn, unless it was begun already.
    fn boot_disk(&mut self, machine: &Machine) -> Result<Outcome> {
        for disk in &machine.facts.disks {
            if !installed::withdraw_request(disk)? {
                let disk = disk.describe();
                return Ok(Outcome::Wait(format!(
                    "the center says that this machine is installed, but a reinstallation of {disk} was begun and not completed; \
                     order it again with `lodge node reinstall`"
                )));
            }
        }
        for disk in &machine.facts.disks {
            if installed::look(disk)?.bootable
                && let Err(error) = boot_option::start_next(&Path::new("/dev").join(&disk.name), disk.block_size)
            {
                self.report.note(&format!("{OWN_ORDER}: {error:#}"));
            }
        }
        self.report.note("this machine is installed; its disk is started");
        Ok(Outcome::BootDisk)
    }

    fn local_bundle(&self, machine: &Machine) -> Option<Source> {
        let file = self.options.bundle.clone().or_else(|| machine.media.iter().find_map(Medium::bundle));
        file.map(Source::File)
    }
}

const NO_CENTER: &str = "nobody says where the center is; looked at the kernel command line, lodge.toml on media labelled LODGE, SMBIOS \
     type 11, the place this machine was booted from, and DHCP (option 224); give one of them and it goes on";
const OWN_ORDER: &str = "the firmware's own order decides what starts next; if this comes up again, take the medium out or put the disk \
     first in the firmware's setup";
const NO_BUNDLE: &str =
    "no bundle: the medium has no lodge-os.tar.gz and the answer names none with install.bundle; give one and it goes on";

/// Disks that hold a medium are not to be written; those with an installation that was cut short are as good as blank.
fn as_choosable(mut facts: Facts, log: &mut dyn FnMut(&str)) -> Result<Facts> {
    medium::protect(&mut facts);
    for name in installed::forgive_unfinished(&mut facts)? {
        log(&format!("{name} holds an installation that was cut short; it is begun anew"));
    }
    Ok(facts)
}

fn signatures(disks: &[Disk], name: &str) -> Vec<Signature> {
    disks.iter().find(|disk| disk.name == name).map(|disk| disk.signatures.clone()).unwrap_or_default()
}

/// Seconds since 1970 by this machine's clock.
fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("reading the clock")?;
    i64::try_from(now.as_secs()).context("reading the clock")
}
