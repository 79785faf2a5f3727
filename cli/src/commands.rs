//! Each command: ask the center, show the answer.

mod drain;
mod environment;
mod failover;
mod hosting;
mod repair;
mod rolling;
mod session;

use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use lodge_client::{Center, Error};
use lodge_model::api::{InstallOrder, NodeDetail};
use lodge_model::drain::Power;
use lodge_model::ids::MachineId;

use crate::arguments::{self, Approve, Arguments, Cluster, Command, Forget, Node, Reinstall, Ticket, Token};
use crate::failure;
use crate::login::{self, Login};
use crate::out::{Out, print, read_line};
use crate::view::{self, Setting};

/// Pauses between tries of `events --follow` while the center is away; it has no way to call us.
const FOLLOW_RETRY: Duration = Duration::from_secs(2);

/// Do what the command line says; the exit status.
pub async fn run(arguments: Arguments) -> Result<u8> {
    let out = Out { json: arguments.json };
    match arguments.command {
        Command::Login(login) => log_in(login, &out).await?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "lodge", &mut script);
            print(&String::from_utf8_lossy(&script))?;
        }
        command => return ask(command, &out).await,
    }
    Ok(failure::OK)
}

/// The commands that need a login.
async fn ask(command: Command, out: &Out) -> Result<u8> {
    let login = Login::find(|key| std::env::var_os(key))?;
    let center = login.center()?;
    match command {
        Command::Env(command) => return environment::run(&center, command, out).await,
        Command::Apply(asked) => environment::apply(&center, &asked, out).await,
        Command::Template(command) => hosting::template(&center, command, out).await,
        Command::Pool(command) => hosting::pool(&center, command, out).await,
        Command::User(command) => hosting::user(&center, command, &login, out).await,
        Command::Node(command) => node(&center, command, out).await,
        Command::Incident(command) => failover::incident(&center, command, out).await,
        Command::Ticket(Ticket::Ls) => {
            let tickets = center.tickets().await?;
            out.show(&tickets, |setting| view::tickets(&tickets, setting))
        }
        Command::Token(Token::New) => {
            let token = center.mint_token().await?;
            out.show(&token, |setting| view::token(&token, setting))
        }
        Command::Cluster(Cluster::Settings) => drain::settings(&center, out).await,
        Command::Cluster(Cluster::Set(asked)) => drain::set(&center, &asked, out).await,
        Command::Cluster(Cluster::Reboot(asked)) => rolling::reboot(&center, &asked, out).await,
        Command::Cluster(Cluster::Capacity) => failover::capacity(&center, out).await,
        Command::Cluster(Cluster::Fencing) => failover::fencing(&center, out).await,
        Command::Cluster(Cluster::Disarm(asked)) => failover::disarm(&center, &asked, out).await,
        Command::Cluster(Cluster::Arm(asked)) => failover::arm(&center, &asked, out).await,
        Command::Cluster(Cluster::Show) => {
            let cluster = center.cluster().await?;
            out.show(&cluster, |setting| view::cluster(&cluster, setting))
        }
        Command::Login(_) | Command::Completions { .. } => Ok(()),
    }?;
    Ok(failure::OK)
}

async fn node(center: &Center, command: Node, out: &Out) -> Result<()> {
    match command {
        Node::Ls => {
            let nodes = center.nodes().await?;
            out.show(&nodes, |setting| view::nodes(&nodes, setting))
        }
        Node::Show { node } => {
            let detail = center.node(&node).await.with_context(|| format!("showing {node}"))?;
            out.show(&detail, |setting| view::node_page(&detail, setting))
        }
        Node::Events { node, follow, after } => events(center, node.as_deref(), follow, after, out).await,
        Node::ConsoleLog { node } => console_log(center, &node, out).await,
        Node::Approve(asked) => approve(center, &asked, out).await,
        Node::Reinstall(asked) => reinstall(center, &asked, out).await,
        Node::Label { node, labels } => {
            center.set_labels(&node, &labels.into_iter().collect()).await.with_context(|| format!("labelling {node}"))?;
            out.done(&format!("the labels of {node} are changed"))
        }
        Node::ConfirmOff { node, confirm } => {
            let detail = center.node(&node).await.with_context(|| format!("looking for {node}"))?;
            let what = format!(
                "{} is taken to be off, and its environments may start elsewhere; if it still runs, both copies write{}",
                called(&detail),
                is_now(&detail)
            );
            if !out.confirm(confirm, &what, true)? {
                return Ok(());
            }
            center.confirm_off(&node).await.with_context(|| format!("confirming that {node} is off"))?;
            out.done(&format!("{node} is taken to be off"))
        }
        Node::Bmc(command) => failover::bmc(center, command, out).await,
        Node::Drain(asked) => drain::drain(center, &asked, out).await,
        Node::Undrain { node } => drain::undrain(center, &node, out).await,
        Node::Certificate { node } => drain::certificate(center, &node, out).await,
        Node::Poweroff(asked) => drain::down(center, &asked, Power::Poweroff, out).await,
        Node::Reboot(asked) => drain::down(center, &asked, Power::Reboot, out).await,
        Node::Forget(asked) => forget(center, &asked, out).await,
    }
}

/// Nothing is stored that does not work.
async fn log_in(asked: arguments::Login, out: &Out) -> Result<()> {
    let token = match asked.token.as_str() {
        "-" => read_line().context("reading the token from standard input")?,
        token => token.to_owned(),
    };
    let login = Login { url: asked.url, ca: asked.ca, token };
    let cluster = login.center()?.cluster().await.with_context(|| format!("logging in at {}", login.url))?;
    let path = login::config_file(&|key: &str| std::env::var_os(key))?;
    login.store(&path)?;
    out.show(&cluster, |setting| {
        format!("logged in at {}; stored in {}\n{}", login.url, path.display(), view::cluster(&cluster, setting))
    })
}

async fn events(center: &Center, node: Option<&str>, follow: bool, mut after: i64, out: &Out) -> Result<()> {
    loop {
        let events = match center.events(node, after, follow).await {
            Ok(events) => events,
            Err(Error::Unreachable { url, why }) if follow && after > 0 => {
                eprintln!("lodge: the center at {url} cannot be reached: {why}; trying again");
                tokio::time::sleep(FOLLOW_RETRY).await;
                continue;
            }
            Err(error) => return Err(error).context("reading events"),
        };
        for event in &events {
            after = after.max(event.id);
            match out.json {
                true => print(&format!("{}\n", serde_json::to_string(event).context("encoding an event")?))?,
                false => print(&view::event(event, &Setting::here()))?,
            }
        }
        if !follow {
            return Ok(());
        }
    }
}

async fn console_log(center: &Center, node: &str, out: &Out) -> Result<()> {
    let text = center.console_log(node).await.with_context(|| format!("reading the console of {node}"))?;
    match out.json {
        true => out.json(&serde_json::json!({ "node": node, "console": text })),
        false if stdout().is_terminal() => print(&view::plain_lines(&text)),
        false => print(&text),
    }
}

async fn approve(center: &Center, asked: &Approve, out: &Out) -> Result<()> {
    let (machine, name) = match asked.machine.parse::<MachineId>() {
        Ok(machine) => (machine, machine.to_string()),
        Err(_) => {
            let detail = center.node(&asked.machine).await.with_context(|| format!("looking for {}", asked.machine))?;
            (detail.node.machine, asked.machine.clone())
        }
    };
    let disk =
        asked.disk.as_ref().map_or_else(|| "the disk that the site's rule chooses".to_owned(), |disk| format!("disk {disk}"));
    let loss = if asked.wipe { "; everything on it is lost" } else { ", if it is blank" };
    let what = format!("{name} is installed on {disk}{loss}");
    if !out.confirm(asked.confirm, &what, asked.wipe)? {
        return Ok(());
    }
    let order = InstallOrder { disk: asked.disk.clone(), wipe: asked.wipe, name: asked.name.clone() };
    center.approve(machine, &order).await.with_context(|| format!("approving {name}"))?;
    out.done(&format!("{name} is approved; `lodge node events {name} -f` follows it"))
}

async fn reinstall(center: &Center, asked: &Reinstall, out: &Out) -> Result<()> {
    let node = &asked.node;
    let detail = center.node(node).await.with_context(|| format!("looking for {node}"))?;
    let disk = asked.disk.as_deref().or(detail.disk_serial.as_deref()).unwrap_or("that the site's rule chooses");
    let what = format!(
        "{} restarts and is installed anew on disk {disk}; everything on that disk is lost{}",
        called(&detail),
        is_now(&detail)
    );
    if !out.confirm(asked.confirm, &what, true)? {
        return Ok(());
    }
    let order = InstallOrder { disk: asked.disk.clone(), wipe: asked.wipe, name: None };
    center.reinstall(node, &order).await.with_context(|| format!("reinstalling {node}"))?;
    out.done(&format!("{node} is going to be reinstalled; `lodge node events {node} -f` follows it"))
}

async fn forget(center: &Center, asked: &Forget, out: &Out) -> Result<()> {
    let node = &asked.node;
    let detail = center.node(node).await.with_context(|| format!("looking for {node}"))?;
    let what = format!(
        "{} leaves the cluster: its certificate no longer counts and it loses the share; its disk stays as it is{}",
        called(&detail),
        is_now(&detail)
    );
    if !out.confirm(asked.confirm, &what, true)? {
        return Ok(());
    }
    center.forget(node).await.with_context(|| format!("forgetting {node}"))?;
    out.done(&format!("{node} is forgotten"))
}

fn called(detail: &NodeDetail) -> String {
    let roles: Vec<String> = detail.node.roles.iter().map(ToString::to_string).collect();
    format!("{} ({})", detail.node.name, if roles.is_empty() { "no role yet".to_owned() } else { roles.join(", ") })
}

fn is_now(detail: &NodeDetail) -> &'static str {
    match detail.node.state {
        lodge_model::api::NodeState::Ready => ". It is ready and may be in use",
        _ => "",
    }
}
