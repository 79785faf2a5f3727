//! Each command: ask the center, show the answer.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stdin, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::CommandFactory as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lodge_client::{Center, Error};
use lodge_model::api::{InstallOrder, NodeDetail};
use lodge_model::ids::MachineId;
use serde::Serialize;

use crate::arguments::{self, Approve, Arguments, Cluster, Command, Confirm, Forget, Node, Reinstall, Ticket, Token};
use crate::failure::NotConfirmed;
use crate::login::{self, Login};
use crate::view::{self, Setting};

/// Pauses between tries of `events --follow` while the center is away; it has no way to call us.
const FOLLOW_RETRY: Duration = Duration::from_secs(2);

/// Do what the command line says.
pub async fn run(arguments: Arguments) -> Result<()> {
    let out = Out { json: arguments.json };
    match arguments.command {
        Command::Login(login) => return log_in(login, &out).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "lodge", &mut script);
            return print(&String::from_utf8_lossy(&script));
        }
        _ => {}
    }
    let center = Login::find(|key| std::env::var_os(key))?.center()?;
    match arguments.command {
        Command::Node(Node::Ls) => {
            let nodes = center.nodes().await?;
            out.show(&nodes, |setting| view::nodes(&nodes, setting))
        }
        Command::Node(Node::Show { node }) => {
            let detail = center.node(&node).await.with_context(|| format!("showing {node}"))?;
            out.show(&detail, |setting| view::node_page(&detail, setting))
        }
        Command::Node(Node::Events { node, follow, after }) => events(&center, node.as_deref(), follow, after, &out).await,
        Command::Node(Node::ConsoleLog { node }) => console_log(&center, &node, &out).await,
        Command::Node(Node::Approve(approve)) => self::approve(&center, &approve, &out).await,
        Command::Node(Node::Reinstall(reinstall)) => self::reinstall(&center, &reinstall, &out).await,
        Command::Node(Node::Forget(forget)) => self::forget(&center, &forget, &out).await,
        Command::Ticket(Ticket::Ls) => {
            let tickets = center.tickets().await?;
            out.show(&tickets, |setting| view::tickets(&tickets, setting))
        }
        Command::Token(Token::New) => {
            let token = center.mint_token().await?;
            out.show(&token, |setting| view::token(&token, setting))
        }
        Command::Cluster(Cluster::Show) => {
            let cluster = center.cluster().await?;
            out.show(&cluster, |setting| view::cluster(&cluster, setting))
        }
        Command::Login(_) | Command::Completions { .. } => Ok(()),
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

fn read_line() -> Result<String> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("reading standard input")?;
    Ok(line.trim().to_owned())
}

/// How answers are shown.
struct Out {
    json: bool,
}

impl Out {
    fn show(&self, value: &impl Serialize, view: impl FnOnce(&Setting) -> String) -> Result<()> {
        if self.json { self.json(value) } else { print(&view(&Setting::here())) }
    }

    fn json(&self, value: &impl Serialize) -> Result<()> {
        print(&format!("{}\n", serde_json::to_string_pretty(value).context("encoding the answer")?))
    }

    fn done(&self, text: &str) -> Result<()> {
        match self.json {
            true => self.json(&serde_json::json!({ "done": text })),
            false => print(&format!("{text}\n")),
        }
    }

    /// Whether to go on. `what` says what will be done; without `loses` nobody is asked.
    fn confirm(&self, confirm: Confirm, what: &str, loses: bool) -> Result<bool> {
        if confirm.dry_run {
            match self.json {
                true => self.json(&serde_json::json!({ "would": what }))?,
                false => print(&format!("would be done: {what}\n"))?,
            }
            return Ok(false);
        }
        if confirm.yes || !loses {
            return Ok(true);
        }
        if !stdin().is_terminal() {
            bail!(NotConfirmed(format!("{what}; say --yes to do it, --dry-run to see only this")));
        }
        eprint!("{what}.\nGo on? [y/N] ");
        match read_line()?.as_str() {
            "y" | "Y" | "yes" => Ok(true),
            _ => bail!(NotConfirmed("nothing was done".into())),
        }
    }
}

impl Setting {
    fn here() -> Self {
        let width = stdout().is_terminal().then(|| comfy_table::Table::new().width()).flatten();
        Self { now: Timestamp::now(), zone: TimeZone::system(), width }
    }
}

/// To standard output. A reader that has gone away, as `head` does, is no error.
fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("writing to standard output"),
    }
}
