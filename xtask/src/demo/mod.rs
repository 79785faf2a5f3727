//! `cargo xtask demo`: a site from bare machines, before one's eyes.
//!
//! The rack runs in a thread of its own; this one shows what the consoles say and waits for Ctrl-C. When the process ends, for whatever
//! reason, the kernel ends the machines with it (see `lodge_qemu_tests::process`).

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lodge_model::environment::view::EnvironmentView;
use lodge_qemu_tests::{
    api::Operator,
    console::RackLine,
    hosting::{Hosting, address, http_get},
    rack::{CENTER, Options, Rack, node_name},
    scenario::{self, Site},
};
use nix::sys::signal::{SigSet, Signal};

use crate::{image, packages, progress::Console, space, template};

pub mod attach;
mod row;
mod show;

use row::{Change, Row};
use show::Show;

/// Where a demo's rack is, below out/rack.
pub const RACK: &str = "demo";

/// What the command takes.
#[derive(Args)]
pub struct Arguments {
    /// End when every machine is ready, and take everything down.
    #[arg(long)]
    once: bool,
    /// How many blank nodes boot from the center.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=50))]
    nodes: u8,
    /// Put the rack's files (disks, consoles, logs) there, and leave them when it is taken down.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print one JSON object a line for every event, instead of a table.
    #[arg(long)]
    json: bool,
}

/// What the main thread hears.
enum Message {
    Line(RackLine),
    Environment(Box<EnvironmentView>),
    Drain { node: String, done: bool },
    Built(Result<Box<Built>>),
    Stop,
}

/// A site whose machines are ready and whose environments run.
struct Built {
    site: Site,
    hosting: Option<Hosting>,
}

/// Environments that are made on the nodes.
const ENVIRONMENTS: [&str; 3] = ["web1", "web2", "web3"];

/// Run it.
pub fn run(arguments: Arguments) -> Result<()> {
    let artifacts = artifacts()?;
    let (tell, hear) = mpsc::channel();
    stop_on_signals(tell.clone())?;
    let dir = arguments.keep.clone().unwrap_or_else(|| image::out_dir().join("rack").join(RACK));
    refuse_strangers(&dir)?;
    let started = Instant::now();
    let mut show = Show::new(arguments.json)?;
    start(&arguments, artifacts, &dir, tell)?;
    let built = follow(&hear, &mut show)?;
    show.end();
    let seconds = started.elapsed().as_secs();
    if !arguments.json {
        println!("{}", farewell(&built, &dir, seconds, arguments.once)?);
    }
    if !arguments.once {
        wait_for_stop(&hear, &mut show);
    }
    take_down(built.site, arguments.keep.is_some())
}

/// Everything that a rack needs, built where it is not there or out of date.
pub fn artifacts() -> Result<lodge_qemu_tests::artifacts::Artifacts> {
    space::ensure(space::RACK)?;
    let progress = Console::new()?;
    let built = image::ensure(&progress)?;
    template::ensure(&progress, &[template::Name::Tiny])?;
    let (firmware, variables) = built.tools.ovmf();
    let (out, cli) = (image::out_dir(), built.programs.join("lodge"));
    Ok(lodge_qemu_tests::artifacts::Artifacts { out, firmware, variables, cli, debian: packages::ensure, probe: image::probe })
}

/// From here on Ctrl-C and SIGTERM are messages. They are blocked before there is another thread, so that every thread inherits it; the
/// programs that build the image, which come before, are ended by Ctrl-C as usual.
fn stop_on_signals(tell: Sender<Message>) -> Result<()> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().context("blocking signals")?;
    let listen = move || {
        let mut asked = false;
        while signals.wait().is_ok() {
            // A second Ctrl-C means it. The kernel ends the machines with us.
            if asked || tell.send(Message::Stop).is_err() {
                std::process::exit(130);
            }
            asked = true;
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).context("starting a thread")?;
    Ok(())
}

/// A rack's directory is cleared before it is used: never one that holds something else.
fn refuse_strangers(dir: &Path) -> Result<()> {
    let ours = |dir: &Path| dir.join("site").is_dir();
    let empty = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if dir.exists() && !ours(dir) && !empty(dir) {
        bail!("{} holds something that is no rack; name an empty or a new directory", dir.display());
    }
    Ok(())
}

/// Set the rack going.
fn start(
    arguments: &Arguments,
    artifacts: lodge_qemu_tests::artifacts::Artifacts,
    dir: &Path,
    tell: Sender<Message>,
) -> Result<()> {
    let (followers, lines) = mpsc::channel();
    let forward = tell.clone();
    let pass_on = move || lines.into_iter().try_for_each(|line| forward.send(Message::Line(line)));
    std::thread::Builder::new().name("lines".into()).spawn(pass_on).context("starting a thread")?;
    let (nodes, options) = (arguments.nodes, Options { dir: Some(dir.to_owned()), capture: false, followers: Some(followers) });
    let build = move || {
        let built = build(artifacts, options, nodes, &tell);
        drop(tell.send(Message::Built(built)));
    };
    std::thread::Builder::new().name("rack".into()).spawn(build).context("starting a thread")?;
    Ok(())
}

fn build(
    artifacts: lodge_qemu_tests::artifacts::Artifacts,
    options: Options,
    nodes: u8,
    tell: &Sender<Message>,
) -> Result<Box<Built>> {
    let mut rack = Rack::new(RACK, artifacts, options)?;
    let fill = |rack: &mut Rack| -> Result<(Operator, Option<Hosting>)> {
        let operator = scenario::install(rack, nodes)?;
        if nodes == 0 {
            return Ok((operator, None));
        }
        let hosting = Hosting::prepare(rack, &operator)?;
        let mut show = |found: &EnvironmentView| drop(tell.send(Message::Environment(Box::new(found.clone()))));
        hosting.create_all(rack, &operator, &ENVIRONMENTS, &mut show)?;
        if nodes > 1 {
            let first = node_name(1);
            drop(tell.send(Message::Drain { node: first.clone(), done: false }));
            operator.lodge(&["node", "drain", &first, "--reason", "the demo shows it", "--wait"])?;
            operator.environments()?.iter().for_each(&mut show);
            drop(tell.send(Message::Drain { node: first, done: true }));
        }
        Ok((operator, Some(hosting)))
    };
    match fill(&mut rack) {
        Ok((operator, hosting)) => Ok(Box::new(Built { site: Site { rack, operator, nodes: (1..=nodes).collect() }, hosting })),
        Err(error) => Err(error.context(rack.last_lines(20))),
    }
}

/// Show what happens until all machines are ready.
fn follow(hear: &Receiver<Message>, show: &mut Show) -> Result<Box<Built>> {
    loop {
        match hear.recv().context("the rack is gone")? {
            Message::Built(Ok(built)) => {
                // The lines that the rack has seen by now are still on their way here.
                let drains = usize::from(built.hosting.is_some() && built.site.nodes.len() > 1);
                let rows = built.site.nodes.len() + 1 + built.hosting.iter().count() * ENVIRONMENTS.len() + drains;
                while show.ready() < rows {
                    show.message(&hear.recv().context("the rack is gone")?);
                }
                return Ok(built);
            }
            Message::Built(failed) => return failed,
            Message::Stop => {
                show.end();
                bail!("stopped before all machines were ready; everything is taken down");
            }
            other => show.message(&other),
        }
    }
}

fn wait_for_stop(hear: &Receiver<Message>, show: &mut Show) {
    for message in hear {
        match message {
            Message::Stop => return,
            other => show.message(&other),
        }
    }
}

/// What to do with a rack that is ready.
fn farewell(Built { site, hosting }: &Built, dir: &Path, seconds: u64, once: bool) -> Result<String> {
    let login = &site.operator.login;
    let cli = image::source_dir().join("target/release/lodge");
    let mut text = format!("\nAll machines are ready, {} min {} s after power-on.\n\n", seconds / 60, seconds % 60);
    text += &site.operator.lodge(&["node", "ls"])?;
    if let Some(hosting) = hosting {
        text += &environments(site, hosting)?;
        if site.nodes.len() > 1 {
            text += &format!(
                "\nlodge node certificate {0}\n{1}",
                node_name(1),
                site.operator.lodge(&["node", "certificate", &node_name(1)])?
            );
            site.operator.lodge(&["node", "undrain", &node_name(1)])?;
        }
    }
    text += &format!("\nHow long each phase took:\n{}", scenario::timelines(&site.rack));
    if once {
        return Ok(text);
    }
    let first = if site.nodes.is_empty() { CENTER.to_owned() } else { node_name(1) };
    text += &format!("\nCenter      {}  (CA {})\n", login.url, login.ca);
    text += &format!("Log in      {}\n", login.command().replacen("lodge", &cli.display().to_string(), 1));
    text += &format!("            then: {} node show {first}, node events -f, node reinstall {first}\n", cli.display());
    text += &format!("Console     cargo xtask console {first}   (leave with Ctrl-])\n");
    text += &format!("Files       {}\n", dir.display());
    Ok(text + "\nCtrl-C takes everything down.")
}

/// The environments, an answer of the first one's web server, and a login into the second.
fn environments(site: &Site, hosting: &Hosting) -> Result<String> {
    let [web, login, _] = ENVIRONMENTS;
    let port = |name: &str, port| site.rack.forward(address(&site.operator.environment(name)?)?, port);
    let (web_port, ssh_port) = (port(web, 80)?, port(login, 22)?);
    let answer = http_get(&site.rack, web_port, "/")?;
    let page = answer.lines().last().unwrap_or_default();
    let said = hosting.ssh(&site.rack, ssh_port, "echo \"$(hostname), up $(cut -d. -f1 /proc/uptime) s\"")?;
    let mut text = format!("\n{}", site.operator.lodge(&["env", "ls"])?);
    text += &format!("\n{web:11} http://127.0.0.1:{web_port}/ says: {page}\n");
    text += &format!("{login:11} by ssh says: {}\n", said.trim());
    text += &format!("{:11} {}\n", "", hosting.ssh_command(ssh_port).join(" "));
    Ok(text)
}

/// Machines off, disks removed; consoles and logs stay.
fn take_down(site: Site, keep: bool) -> Result<()> {
    let dir = site.rack.dir.clone();
    let disks: Vec<PathBuf> = site
        .rack
        .machines()
        .flat_map(|machine| machine.spec.disks.iter().map(|disk| machine.disk_file(&disk.serial)))
        .collect();
    drop(site);
    if keep {
        eprintln!("taken down; everything of the rack is in {}", dir.display());
        return Ok(());
    }
    for disk in disks {
        std::fs::remove_file(&disk).with_context(|| format!("removing {}", disk.display()))?;
    }
    eprintln!("taken down; consoles and logs are in {}", dir.display());
    Ok(())
}
