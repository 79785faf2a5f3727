//! `lodge apply`: a file of environments, and what must be done for them to be as it says. Pure but for files with public keys.
//!
//! It only makes and changes. What is not in the file is left alone, and what cannot be changed is refused before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use lodge_model::environment::spec::{Change, PRIORITY, Restart, Spec};
use lodge_model::environment::view::EnvironmentView;
use lodge_model::live::MoveBy;
use serde::{Deserialize, Deserializer, Serialize};

use crate::amount;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Entry,
    #[serde(default)]
    environment: Vec<Entry>,
}

/// What is said of one environment, or of all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Entry {
    name: Option<String>,
    template: Option<String>,
    #[serde(deserialize_with = "size")]
    disk: Option<u64>,
    #[serde(deserialize_with = "size")]
    memory: Option<u64>,
    #[serde(deserialize_with = "cpus")]
    cpus: Option<u32>,
    ssh_keys: Option<Vec<String>>,
    ssh_key_files: Option<Vec<String>>,
    addresses: Option<Vec<IpAddr>>,
    priority: Option<u32>,
    anti_affinity: Option<String>,
    node: Option<String>,
    node_labels: Option<BTreeMap<String, String>>,
    restart: Option<Restart>,
    #[serde(rename = "move")]
    move_by: Option<MoveBy>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// It does not exist.
    Create {
        /// What to make.
        spec: Spec,
    },
    /// It is otherwise.
    Change {
        /// Which.
        name: String,
        /// What changes.
        change: Change,
        /// The same, in words.
        words: Vec<String>,
    },
    /// It is as the file says.
    Keep {
        /// Which.
        name: String,
    },
}

/// What the file asks for, whole and checked.
pub fn read(text: &str, keys: &dyn Fn(&str) -> Result<Vec<String>>) -> Result<Vec<Spec>> {
    let file: File = toml::from_str(text)?;
    if file.defaults.name.is_some() {
        bail!("[defaults]: a name is not for all of them");
    }
    if file.environment.is_empty() {
        bail!("there is no [[environment]] in it");
    }
    let mut names = BTreeSet::new();
    let mut specs = Vec::new();
    for (at, entry) in file.environment.iter().enumerate() {
        let called = entry.name.clone().unwrap_or_else(|| format!("number {}", at + 1));
        let spec = entry.spec(&file.defaults, keys).with_context(|| format!("[[environment]] {called}"))?;
        if !names.insert(spec.name.clone()) {
            bail!("[[environment]] {called} is there twice");
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// What must be done. All that cannot be done is told at once.
pub fn plan(specs: &[Spec], found: &[EnvironmentView]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut refused = Vec::new();
    for spec in specs {
        let Some(view) = found.iter().find(|view| view.spec.name == spec.name) else {
            steps.push(Step::Create { spec: spec.clone() });
            continue;
        };
        match difference(spec, &view.spec) {
            Ok((change, words)) if words.is_empty() => {
                debug_assert_eq!(change, Change::default());
                steps.push(Step::Keep { name: spec.name.clone() });
            }
            Ok((change, words)) => steps.push(Step::Change { name: spec.name.clone(), change, words }),
            Err(why) => refused.push(format!("{}: {why}", spec.name)),
        }
    }
    if !refused.is_empty() {
        bail!("nothing was done: {}", refused.join("; "));
    }
    Ok(steps)
}

/// From what is to what is asked for; with each change in words.
fn difference(to: &Spec, from: &Spec) -> Result<(Change, Vec<String>), String> {
    let mut change = Change::default();
    let mut words = Vec::new();
    let fixed = [
        ("template", to.template != from.template),
        ("node", to.node != from.node),
        ("node-labels", to.node_labels != from.node_labels),
        ("ssh-keys", to.ssh_keys != from.ssh_keys),
        ("addresses", !to.addresses.is_empty() && to.addresses != from.addresses),
    ];
    let fixed: Vec<&str> = fixed.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if !fixed.is_empty() {
        return Err(format!("{} cannot be changed once it exists", fixed.join(", ")));
    }
    if to.disk < from.disk {
        return Err(format!(
            "a disk does not become smaller ({} now, {} asked for)",
            amount::size(from.disk),
            amount::size(to.disk)
        ));
    }
    if to.disk != from.disk {
        change.disk = Some(to.disk);
        words.push(format!("disk {} -> {}", amount::size(from.disk), amount::size(to.disk)));
    }
    if to.memory != from.memory {
        change.memory = Some(to.memory);
        words.push(format!("memory {} -> {}", amount::size(from.memory), amount::size(to.memory)));
    }
    if to.cpu_millis != from.cpu_millis {
        change.cpu_millis = Some(to.cpu_millis);
        words.push(format!("cpus {} -> {}", amount::cpus(from.cpu_millis), amount::cpus(to.cpu_millis)));
    }
    if to.priority != from.priority {
        change.priority = Some(to.priority);
        words.push(format!("priority {} -> {}", from.priority, to.priority));
    }
    if to.anti_affinity != from.anti_affinity {
        let group = |group: &Option<String>| group.clone().unwrap_or_default();
        change.anti_affinity = Some(group(&to.anti_affinity));
        words.push(format!("anti-affinity {:?} -> {:?}", group(&from.anti_affinity), group(&to.anti_affinity)));
    }
    if to.restart != from.restart {
        change.restart = Some(to.restart);
        words.push(format!("restart {} -> {}", crate::view::restart(from.restart), crate::view::restart(to.restart)));
    }
    if to.move_by != from.move_by {
        change.move_by = Some(to.move_by);
        words.push(format!("move {} -> {}", from.move_by.word(), to.move_by.word()));
    }
    Ok((change, words))
}

impl Entry {
    fn spec(&self, defaults: &Entry, keys: &dyn Fn(&str) -> Result<Vec<String>>) -> Result<Spec> {
        /// Its own word, else the one for all.
        macro_rules! said {
            ($field:ident) => {
                self.$field.clone().or_else(|| defaults.$field.clone())
            };
        }
        let mut ssh_keys = said!(ssh_keys).unwrap_or_default();
        for file in said!(ssh_key_files).unwrap_or_default() {
            ssh_keys.extend(keys(&file)?);
        }
        let spec = Spec {
            name: self.name.clone().context("it has no name")?,
            template: said!(template).context("it has no template")?,
            disk: said!(disk).context("it has no disk (as \"10G\")")?,
            memory: said!(memory).context("it has no memory (as \"1G\")")?,
            cpu_millis: said!(cpus).unwrap_or(1000),
            ssh_keys,
            addresses: said!(addresses).unwrap_or_default(),
            priority: said!(priority).unwrap_or(PRIORITY),
            anti_affinity: said!(anti_affinity),
            node: said!(node),
            node_labels: said!(node_labels).unwrap_or_default(),
            restart: said!(restart).unwrap_or_default(),
            move_by: said!(move_by).unwrap_or_default(),
        };
        spec.check()?;
        Ok(spec)
    }
}

/// `"10G"`, or bytes.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a size, as \"10G\"")]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(Some(bytes)),
        Size::Text(text) => amount::parse_size(&text).map(Some).map_err(serde::de::Error::custom),
    }
}

/// `2`, `0.5` or `"0.5"`.
fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number of processors, as 2 or 0.5")]
    enum Cpus {
        Whole(u32),
        Part(f64),
        Text(String),
    }
    let text = match Cpus::deserialize(deserializer)? {
        Cpus::Whole(number) => number.to_string(),
        Cpus::Part(number) => number.to_string(),
        Cpus::Text(text) => text,
    };
    amount::parse_cpus(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
