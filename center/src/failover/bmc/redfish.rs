//! Redfish (DMTF DSP0266, schema ComputerSystem), as much of it as fencing needs: find the system, read its power, switch it, and read
//! again until it says what it was told. An accepted order is no proof: only the power state that is read back is.
//!
//! Every request carries the account (HTTP Basic, which DSP0266 asks of every service), so that no session is left behind in a BMC that has
//! room for a few. Nothing takes longer than `Limits` say, and no other host is ever spoken to, whatever links an answer holds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lodge_model::bmc::{Secret, Trust};
use lodge_model::ids::MachineId;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Bmc;
use super::tls::Known;
use answers::{Collection, ComputerSystem, Link, Root};

mod answers;

/// Longest answer that is read: a system with all its links is some ten KiB.
const ANSWER_MAX: usize = 1 << 20;
/// Pauses between two looks at the power: a BMC cannot call us.
const LOOK_FIRST: Duration = Duration::from_millis(200);
const LOOK_LAST: Duration = Duration::from_secs(3);
/// Where every service begins.
const ROOT: &str = "/redfish/v1/";

/// How long a BMC is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For one answer.
    pub answer: Duration,
    /// From an order to the power state that it asks for.
    pub switched: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), switched: Duration::from_secs(30) }
    }
}

/// A BMC to speak to.
pub struct Redfish {
    base: Url,
    user: String,
    password: Secret,
    system: Option<String>,
    machine: Option<Uuid>,
    http: Client,
    known: Arc<Known>,
    limits: Limits,
}

/// A system that it manages, as it was when it was read.
#[derive(Clone, Debug)]
pub struct System {
    path: String,
    /// Its name there.
    pub id: String,
    /// Its power.
    pub power: Power,
    /// Its SMBIOS UUID, where it says one.
    pub machine: Option<Uuid>,
    /// Maker and model.
    pub model: String,
    /// Ways of switching that it offers; empty where it does not say.
    pub resets: Vec<String>,
    reset: Option<String>,
}

/// Power of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs.
    On,
    /// It does not: whatever was in its memory is gone.
    Off,
    /// Something between, in Redfish's word.
    Other(String),
}

impl Power {
    /// Redfish's word.
    pub fn word(&self) -> &str {
        match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::Other(word) => word,
        }
    }
}

/// A machine's power is as it was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// What was read back, for people.
    pub proof: String,
    /// It was so already: somebody else has switched it.
    pub was_so: bool,
}

/// What is ordered, as Redfish has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    ForceOff,
    On,
}

impl Reset {
    fn word(self) -> &'static str {
        match self {
            Self::ForceOff => "ForceOff",
            Self::On => "On",
        }
    }

    fn leads_to(self) -> Power {
        match self {
            Self::ForceOff => Power::Off,
            Self::On => Power::On,
        }
    }
}

impl Redfish {
    /// As it was set.
    pub fn new(bmc: &Bmc, limits: Limits) -> Result<Self> {
        let redfish = Self::open(&bmc.url, (&bmc.user, &bmc.password), bmc.system.clone(), Some(&bmc.trust), limits)?;
        Ok(Self { machine: bmc.machine, ..redfish })
    }

    /// From plain values. Without trust it tells whose certificate is presented, and nothing more.
    pub fn open(
        url: &str,
        (user, password): (&str, &Secret),
        system: Option<String>,
        trust: Option<&Trust>,
        limits: Limits,
    ) -> Result<Self> {
        let known = Known::by(trust)?;
        let http = Client::builder()
            .tls_backend_preconfigured(known.config()?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Small servers forget connections without a word.
            .pool_max_idle_per_host(0)
            .http1_only()
            .timeout(limits.answer)
            .user_agent(concat!("lodge/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("setting up the HTTP client")?;
        let (user, password) = (user.to_owned(), password.clone());
        Ok(Self { base: base(url)?, user, password, system, machine: None, http, known, limits })
    }

    /// The system as it is now.
    pub async fn look(&self) -> Result<System> {
        let root: Root = self.get(ROOT).await?;
        let systems = root.systems.with_context(|| format!("the BMC at {} manages no systems", self.base))?;
        let Collection { members } = self.get(&systems.path).await?;
        let path = choose(members, self.system.as_deref())?;
        self.read(path).await
    }

    /// The same, where it is the machine that is meant.
    pub async fn tested(&self) -> Result<System> {
        let system = self.look().await?;
        self.check_machine(&system)?;
        Ok(system)
    }

    /// Switch it off, and read that it is. Right before it is ordered it is asked once more whether it `is_wanted`.
    pub async fn switch_off(&self, is_wanted: impl Future<Output = Result<bool>>) -> Result<Switched> {
        self.switch(Reset::ForceOff, is_wanted).await
    }

    /// Switch it on, and read that it is.
    pub async fn switch_on(&self, is_wanted: impl Future<Output = Result<bool>>) -> Result<Switched> {
        self.switch(Reset::On, is_wanted).await
    }

    async fn switch(&self, reset: Reset, is_wanted: impl Future<Output = Result<bool>>) -> Result<Switched> {
        let before = self.tested().await?;
        let (word, wanted) = (reset.word(), reset.leads_to());
        if before.power == wanted {
            return Ok(Switched { proof: format!("{} was {} already", before.id, wanted.word()), was_so: true });
        }
        ensure!(is_wanted.await?, "it is not wanted any more");
        self.order(&before, reset).await?;
        let began = Instant::now();
        let mut pause = LOOK_FIRST;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_LAST);
            let now = self.read(before.path.clone()).await?;
            if now.power == wanted {
                let (id, was) = (&before.id, before.power.word());
                let proof = format!("{id} was {was}, took {word}, and was read back as {}", wanted.word());
                return Ok(Switched { proof, was_so: false });
            }
            if began.elapsed() >= self.limits.switched {
                bail!(
                    "the BMC at {} took {word}, and {:.0} s later {} is still {}; look at the machine",
                    self.base,
                    began.elapsed().as_secs_f64(),
                    before.id,
                    now.power.word()
                );
            }
        }
    }

    /// A BMC whose address has been given to another machine must not switch that one.
    fn check_machine(&self, system: &System) -> Result<()> {
        match (self.machine, system.machine) {
            (Some(meant), Some(said)) if !is_same(meant, said) => bail!(
                "the BMC at {} manages the machine {said} now, and {meant} is meant: nothing was switched; set the right one: lodge \
                 node bmc set",
                self.base
            ),
            _ => Ok(()),
        }
    }

    async fn read(&self, path: String) -> Result<System> {
        let ComputerSystem { id, power, uuid, maker, model, actions } = self.get(&path).await?;
        let reset = actions.and_then(|actions| actions.reset);
        let words: Vec<String> = [maker, model].into_iter().flatten().filter(|word| !word.is_empty()).collect();
        let power = match power.as_deref() {
            Some("On") => Power::On,
            Some("Off") => Power::Off,
            other => Power::Other(other.unwrap_or("unknown").to_owned()),
        };
        Ok(System {
            id: id.unwrap_or_else(|| last(&path).to_owned()),
            path,
            power,
            machine: uuid.and_then(|text| text.parse().ok()).filter(|uuid: &Uuid| !uuid.is_nil() && !uuid.is_max()),
            model: words.join(" "),
            resets: reset.as_ref().map(|reset| reset.allowed.clone()).unwrap_or_default(),
            reset: reset.map(|reset| reset.target),
        })
    }

    async fn order(&self, system: &System, reset: Reset) -> Result<()> {
        let (id, word) = (&system.id, reset.word());
        let target = system.reset.as_ref();
        let target = target.with_context(|| format!("the BMC at {} offers no way to switch {id}", self.base))?;
        ensure!(
            system.resets.is_empty() || system.resets.iter().any(|offered| offered == word),
            "the BMC at {} does not offer {word} for {id}, only {}",
            self.base,
            system.resets.join(", ")
        );
        self.ask(Method::POST, target, Some(json!({ "ResetType": word }))).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut response = self.ask(Method::GET, path, None).await?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(path, &error))? {
            body.extend_from_slice(&piece);
            ensure!(body.len() <= ANSWER_MAX, "the answer of the BMC at {} to {path} does not end", self.base);
        }
        serde_json::from_slice(&body).with_context(|| format!("understanding the answer of the BMC at {} to {path}", self.base))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<serde_json::Value>) -> Result<Response> {
        ensure!(
            path.starts_with('/') && !path.starts_with("//"),
            "the BMC at {} points to {path:?}, which is not its own",
            self.base
        );
        let url = self.base.join(path).with_context(|| format!("following {path:?}"))?;
        let mut request = self.http.request(method, url).basic_auth(&self.user, Some(&self.password.0));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| self.broken(path, &error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED => bail!(
                "the BMC at {} does not know the user {} with this password; give another: lodge node bmc set NODE --user … \
                 --password-file …",
                self.base,
                self.user
            ),
            StatusCode::FORBIDDEN => bail!(
                "the BMC at {} does not let the user {} do this ({path}); it needs the right to control power",
                self.base,
                self.user
            ),
            status => {
                let said = response.bytes().await.unwrap_or_default();
                bail!("the BMC at {} refused {path}: {}", self.base, reason(&said).unwrap_or_else(|| status.to_string()))
            }
        }
    }

    fn broken(&self, path: &str, error: &reqwest::Error) -> anyhow::Error {
        let base = &self.base;
        if let Some(presented) = self.known.refused() {
            return anyhow!(
                "the BMC at {base} presents a certificate that nobody has vouched for, {presented}: compare it with what the BMC shows \
                 itself; if it is the same: lodge node bmc set … --fingerprint {presented}"
            );
        }
        if error.is_timeout() {
            return anyhow!("the BMC at {base} did not answer {path} within {:.0} s", self.limits.answer.as_secs_f64());
        }
        anyhow!("the BMC at {base} cannot be reached: {}; look at its address and its network", innermost(error))
    }
}

impl System {
    /// Whether it is this machine, as far as it says which it is.
    pub fn is_of(&self, machine: MachineId) -> bool {
        self.machine.is_none_or(|said| is_same(said, machine.0))
    }
}

/// Some firmware tells the first three fields in the order of bytes that SMBIOS stores, some in that of RFC 9562.
fn is_same(one: Uuid, other: Uuid) -> bool {
    one == other || Uuid::from_bytes(one.to_bytes_le()) == other
}

/// `https://ADDRESS[:PORT]` and nothing more: the rest is the protocol's.
fn base(text: &str) -> Result<Url> {
    let url = Url::parse(text).with_context(|| format!("reading {text:?} as an address; expected https://ADDRESS"))?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    ensure!(
        url.scheme() == "https"
            && url.host().is_some()
            && is_plain
            && matches!(url.path(), "/" | "/redfish" | "/redfish/v1" | ROOT),
        "{text:?} is not https://ADDRESS: a BMC is spoken to by HTTPS, and account and system are given by themselves"
    );
    url.join("/").context("reading an address")
}

fn choose(members: Vec<Link>, wanted: Option<&str>) -> Result<String> {
    let names = || members.iter().map(|link| last(&link.path)).collect::<Vec<_>>().join(", ");
    match (wanted, members.as_slice()) {
        (_, []) => bail!("it manages no system"),
        (None, [only]) => Ok(only.path.clone()),
        (None, _) => bail!("it manages several systems: say which, --system ID, one of {}", names()),
        (Some(id), _) => {
            let found = members.iter().find(|link| last(&link.path) == id);
            Ok(found.with_context(|| format!("it manages no system {id}; there is {}", names()))?.path.clone())
        }
    }
}

fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// What an error answer says, for people (DSP0266, "Error responses").
fn reason(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = answer.get("error")?;
    let told = error["@Message.ExtendedInfo"][0]["Message"].as_str().or_else(|| error["message"].as_str())?;
    Some(told.chars().filter(|one| !one.is_control()).take(300).collect())
}

fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests;
