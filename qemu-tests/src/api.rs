//! The operator: the built `lodge` command against the center of the rack, as a person uses it.

use std::{
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};
use lodge_model::api::{EventView, NodeDetail, NodeView, TicketView};
use lodge_model::drain::DrainView;
use lodge_model::environment::view::{EnvironmentView, TemplateView};
use lodge_model::incident::IncidentView;
use serde::de::DeserializeOwned;

/// What the center's console says once, at its first start: `… lodge login URL --ca FINGERPRINT --token TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The center as its machine knows it.
    pub url: String,
    /// Fingerprint of its CA.
    pub ca: String,
    /// Operator's token.
    pub token: String,
}

impl Login {
    /// Find it in a console line.
    pub fn find(line: &str) -> Option<Self> {
        let (_, words) = line.split_once("lodge login ")?;
        match words.split_whitespace().collect::<Vec<_>>()[..] {
            [url, "--ca", ca, "--token", token, ..] => Some(Self { url: url.into(), ca: ca.into(), token: token.into() }),
            _ => None,
        }
    }

    /// The same for this host, to which the center is a port of its own.
    pub fn at(mut self, port: u16) -> Self {
        self.url = format!("https://127.0.0.1:{port}");
        self
    }

    /// What a person types to log in.
    pub fn command(&self) -> String {
        format!("lodge login {} --ca {} --token {}", self.url, self.ca, self.token)
    }
}

/// An operator who is logged in.
#[derive(Clone, Debug)]
pub struct Operator {
    cli: PathBuf,
    /// How he is logged in.
    pub login: Login,
}

impl Operator {
    /// An operator with the `lodge` command at `cli`.
    pub fn new(cli: PathBuf, login: Login) -> Self {
        Self { cli, login }
    }

    /// What `lodge ARGUMENTS` prints; its failure is an error with what it said.
    pub fn lodge(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_lodge(arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            bail!("lodge {} failed ({}): {said}", arguments.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Run `lodge ARGUMENTS` whatever comes of it.
    pub fn try_lodge(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("starting {}", self.cli.display()))
    }

    /// `lodge node ls`.
    pub fn nodes(&self) -> Result<Vec<NodeView>> {
        self.json(&["node", "ls", "--json"])
    }

    /// `lodge node show NAME`.
    pub fn node(&self, name: &str) -> Result<NodeDetail> {
        self.json(&["node", "show", name, "--json"])
    }

    /// `lodge node events NAME`.
    pub fn events(&self, name: &str) -> Result<Vec<EventView>> {
        let text = self.lodge(&["node", "events", name, "--json"])?;
        // One object a line, or one array: both are read.
        let mut events = Vec::new();
        for value in serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>() {
            match value.context("reading what lodge node events printed")? {
                serde_json::Value::Array(several) => events.extend(several),
                one => events.push(one),
            }
        }
        serde_json::from_value(serde_json::Value::Array(events)).context("reading what lodge node events printed")
    }

    /// `lodge ticket ls`.
    pub fn tickets(&self) -> Result<Vec<TicketView>> {
        self.json(&["ticket", "ls", "--json"])
    }

    /// `lodge env ls`.
    pub fn environments(&self) -> Result<Vec<EnvironmentView>> {
        self.json(&["env", "ls", "--json"])
    }

    /// `lodge env show NAME`.
    pub fn environment(&self, name: &str) -> Result<EnvironmentView> {
        self.json(&["env", "show", name, "--json"])
    }

    /// `lodge incident ls`, the newest first.
    pub fn incidents(&self) -> Result<Vec<IncidentView>> {
        self.json(&["incident", "ls", "--json"])
    }

    /// `lodge node drain NAME --status`; nothing where it is not drained (any more).
    pub fn drain(&self, name: &str) -> Result<Option<DrainView>> {
        let output = self.try_lodge(&["node", "drain", name, "--status", "--json"])?;
        match output.status.code() {
            Some(0) => serde_json::from_slice(&output.stdout).map(Some).context("reading a drain"),
            Some(3) => Ok(None),
            _ => bail!("lodge node drain {name} --status: {}", String::from_utf8_lossy(&output.stderr).trim()),
        }
    }

    /// `lodge template ls`.
    pub fn templates(&self) -> Result<Vec<TemplateView>> {
        self.json(&["template", "ls", "--json"])
    }

    /// What a shell command in an environment prints; its failure is an error with what it said.
    pub fn exec(&self, name: &str, command: &str) -> Result<String> {
        self.lodge(&["env", "exec", name, "--", "sh", "-c", command])
    }

    /// Start `lodge ARGUMENTS`, to write to it and read from it while it runs.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| format!("starting {}", self.cli.display()))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cli);
        command.args(arguments).stdin(Stdio::null());
        command.env("LODGE_URL", &self.login.url).env("LODGE_CA", &self.login.ca).env("LODGE_TOKEN", &self.login.token);
        command
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.lodge(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("reading what lodge {} printed", arguments.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_found_on_the_console_and_turned_to_this_host() {
        let line = "[  20.1] lodge: note: log in with: lodge login https://10.77.0.10:8443 --ca sha256:ab --token t0";
        let login = Login::find(line).unwrap().at(4711);
        assert_eq!(login.command(), "lodge login https://127.0.0.1:4711 --ca sha256:ab --token t0");
        assert_eq!(Login::find("lodge: center1 is ready"), None);
    }
}
