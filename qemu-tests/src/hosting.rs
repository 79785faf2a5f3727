//! What demo and tests have in common about environments: a template, a pool of addresses, a key to log in with, and the way to them
//! from this host.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lodge_model::environment::view::{EnvironmentView, Phase};

use crate::{api::Operator, rack::Rack, router};

/// Name of the small template in the center.
pub const TINY: &str = "tiny";
/// Addresses for environments, above those that the site's DHCP server gives.
const POOL: &str = "10.77.0.128-10.77.0.199/24";
/// A service of an environment that is up answers within this on the reference machine.
const ANSWER: Duration = Duration::from_secs(60);
/// Environments that are created at once run within this on the reference machine.
const START: Duration = Duration::from_secs(120);
/// Between two tries of a service that refuses connections: it cannot tell when it is up.
const TRY_AGAIN: Duration = Duration::from_millis(300);

/// A site that environments can be made on.
pub struct Hosting {
    key: PathBuf,
}

/// What one environment asks for, on the command line of `lodge env create`.
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Memory, as `64M`.
    pub memory: &'a str,
    /// More arguments.
    pub more: &'a [&'a str],
}

impl Hosting {
    /// Import the small template, open a pool of addresses, make a key. What is there already is used.
    pub fn prepare(rack: &Rack, operator: &Operator) -> Result<Self> {
        let templates = operator.templates()?;
        if !templates.iter().any(|template| template.name == TINY) {
            let tiny = rack.artifacts.tiny();
            operator.lodge(&["template", "import", TINY, &tiny.display().to_string()])?;
            operator.lodge(&["pool", "add", "site", POOL, "--gateway", router::ADDRESS])?;
        }
        Ok(Self { key: key(&rack.dir)? })
    }

    /// Create one and wait until it runs.
    pub fn create(&self, operator: &Operator, wanted: &Wanted) -> Result<EnvironmentView> {
        self.order(operator, wanted, &["--wait"])?;
        operator.environment(wanted.name)
    }

    /// Create several at once and follow them until they run. `tell` hears of each whenever its phase changes.
    pub fn create_all(
        &self,
        rack: &Rack,
        operator: &Operator,
        names: &[&str],
        tell: &mut dyn FnMut(&EnvironmentView),
    ) -> Result<()> {
        for name in names {
            self.order(operator, &Wanted { name, memory: "96M", more: &[] }, &[])?;
        }
        let mut told = vec![None; names.len()];
        let started = Instant::now();
        loop {
            for (name, told) in names.iter().zip(&mut told) {
                let found = operator.environment(name)?;
                if told.replace(found.phase) != Some(found.phase) {
                    tell(&found);
                }
            }
            if told.iter().all(|phase| *phase == Some(Phase::Running)) {
                return Ok(());
            }
            if started.elapsed() > rack.host.scale(START) {
                bail!("the environments did not come up in time:\n{}", operator.lodge(&["env", "ls"])?);
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }

    /// Order one; `more` are more arguments of the command.
    pub fn order(&self, operator: &Operator, wanted: &Wanted, more: &[&str]) -> Result<()> {
        let public = self.public_key().display().to_string();
        let fixed = ["env", "create", wanted.name, "--template", TINY, "--disk", "512M", "--memory", wanted.memory];
        let mut arguments = fixed.to_vec();
        arguments.extend(["--cpus", "0.5", "--ssh-key", &public]);
        arguments.extend(wanted.more);
        arguments.extend(more);
        operator.lodge(&arguments).map(drop)
    }

    /// The file that is given to `--ssh-key`.
    pub fn public_key(&self) -> PathBuf {
        self.key.with_extension("pub")
    }

    /// What is typed to log in to an environment whose ssh port is this port of the host.
    pub fn ssh_command(&self, port: u16) -> Vec<String> {
        let key = self.key.display().to_string();
        let options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"];
        let mut words: Vec<String> = ["ssh", "-i", &key].map(str::to_owned).to_vec();
        words.extend(options.map(str::to_owned));
        words.extend(["-p".to_owned(), port.to_string(), "root@127.0.0.1".to_owned()]);
        words
    }

    /// Log in and run a command, as soon as sshd answers.
    pub fn ssh(&self, rack: &Rack, port: u16, command: &str) -> Result<String> {
        let words = self.ssh_command(port);
        let started = Instant::now();
        loop {
            let output = run(&words, command)?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            // 255 is ssh's own: it did not come through.
            if output.status.code() != Some(255) || started.elapsed() > rack.host.scale(ANSWER) {
                bail!("{} {command:?} ended with {}: {said}", words.join(" "), output.status);
            }
            std::thread::sleep(TRY_AGAIN);
        }
    }
}

fn run(words: &[String], command: &str) -> Result<Output> {
    let (program, arguments) = words.split_first().context("naming a program")?;
    let mut ssh = Command::new(program);
    ssh.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]).args(arguments).arg(command).stdin(Stdio::null());
    ssh.output().with_context(|| format!("starting {program}"))
}

/// A key of this rack's own.
fn key(dir: &Path) -> Result<PathBuf> {
    let key = dir.join("id_ed25519");
    if !key.exists() {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "rack", "-f"]).arg(&key).stdin(Stdio::null());
        let output = keygen.output().context("starting ssh-keygen")?;
        if !output.status.success() {
            bail!("ssh-keygen failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(key)
}

/// The IPv4 address of an environment.
pub fn address(environment: &EnvironmentView) -> Result<Ipv4Addr> {
    let mut addresses = environment.addresses.iter().filter_map(|address| match address.ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    addresses.next().with_context(|| format!("{} has no address", environment.spec.name))
}

/// The answer of a web server on a port of this host, as soon as it gives one.
pub fn http_get(rack: &Rack, port: u16, path: &str) -> Result<String> {
    let started = Instant::now();
    loop {
        match try_get(port, path) {
            Ok(text) if text.starts_with("HTTP/") => return Ok(text),
            answer if started.elapsed() > rack.host.scale(ANSWER) => {
                bail!("http://127.0.0.1:{port}{path} gave no answer in time; last: {answer:?}")
            }
            _ => std::thread::sleep(TRY_AGAIN),
        }
    }
}

fn try_get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: environment\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
