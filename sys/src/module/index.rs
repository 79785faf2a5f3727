//! kmod's indexes as values: what a module needs, and which modules a device asks for. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The indexes of one kernel.
#[derive(Debug, Default)]
pub struct Index {
    modules: BTreeMap<String, Module>,
    /// `modules.alias`, whole: the patterns point into it.
    aliases: String,
    /// Pattern and module, as ranges of `aliases`, by what is before the pattern's first colon.
    by_bus: BTreeMap<String, Vec<(usize, usize, usize)>>,
}

#[derive(Debug, Default)]
struct Module {
    path: String,
    needs: Vec<String>,
    before: Vec<String>,
    after: Vec<String>,
}

/// One module of a plan, in the order of loading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name with underscores.
    pub name: String,
    /// File, below the directory of the indexes.
    pub path: String,
    /// Whether the one that was asked for cannot do without it.
    pub required: bool,
}

impl Index {
    /// Read the texts of `modules.dep`, `modules.alias` and `modules.softdep`. Lines that make no sense are left out.
    pub fn parse(dep: &str, aliases: String, softdep: &str) -> Self {
        let mut modules = BTreeMap::new();
        for line in dep.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(name_of).collect();
                modules.insert(name_of(path), Module { path: path.to_owned(), needs, ..Module::default() });
            }
        }
        for line in softdep.lines() {
            add_softdep(&mut modules, line);
        }
        let by_bus = bus_index(&aliases);
        Self { modules, aliases, by_bus }
    }

    /// What to load for a module or an alias, in order, itself included; `None` when there is none of that name.
    pub fn plan(&self, name: &str) -> Option<Vec<Step>> {
        let mut plan = Plan { index: self, open: BTreeSet::new(), steps: Vec::new() };
        for name in self.resolve(name) {
            plan.add(&name, true);
        }
        (!plan.steps.is_empty()).then_some(plan.steps)
    }

    /// The module of that name, else those with that alias (soft dependencies name ciphers and checksums so).
    fn resolve(&self, name: &str) -> Vec<String> {
        let module = normal(name);
        if self.modules.contains_key(&module) {
            return vec![module];
        }
        let found = self.for_modalias(name);
        found.into_iter().filter(|name| self.modules.contains_key(name)).collect()
    }

    /// Names of the modules whose alias matches, in the index's order.
    pub fn for_modalias(&self, modalias: &str) -> Vec<String> {
        let bus = modalias.split_once(':').map_or("", |(bus, _)| bus);
        let mut found: Vec<String> = Vec::new();
        for bucket in [bus, ""] {
            for (pattern, split, end) in self.by_bus.get(bucket).into_iter().flatten() {
                let pattern = self.aliases.get(*pattern..*split).unwrap_or_default();
                if matches(pattern.as_bytes(), modalias.as_bytes()) {
                    let module = normal(self.aliases.get(*split..*end).unwrap_or_default().trim());
                    if !found.contains(&module) {
                        found.push(module);
                    }
                }
            }
        }
        found
    }
}

struct Plan<'a> {
    index: &'a Index,
    open: BTreeSet<String>,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn add(&mut self, name: &str, required: bool) {
        let Some(module) = self.index.modules.get(name) else { return };
        if let Some(step) = self.steps.iter_mut().find(|step| step.name == name) {
            step.required |= required;
            return;
        }
        // A ring of soft dependencies ends where it began.
        if !self.open.insert(name.to_owned()) {
            return;
        }
        for soft in module.before.iter().flat_map(|name| self.index.resolve(name)) {
            self.add(&soft, false);
        }
        // modules.dep lists everything a module needs, the deepest last.
        for needed in module.needs.iter().rev() {
            self.add(needed, required);
        }
        self.steps.push(Step { name: name.to_owned(), path: module.path.clone(), required });
        for soft in module.after.iter().flat_map(|name| self.index.resolve(name)) {
            self.add(&soft, false);
        }
    }
}

/// A module's name has underscores where its file may have hyphens.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split_once(".ko").map_or(file, |(name, _)| name))
}

fn add_softdep(modules: &mut BTreeMap<String, Module>, line: &str) {
    let mut words = line.split_whitespace();
    let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { return };
    let Some(module) = modules.get_mut(&normal(name)) else { return };
    let mut is_before = true;
    for word in words {
        match word {
            "pre:" => is_before = true,
            "post:" => is_before = false,
            name if is_before => module.before.push(name.to_owned()),
            name => module.after.push(name.to_owned()),
        }
    }
}

fn bus_index(aliases: &str) -> BTreeMap<String, Vec<(usize, usize, usize)>> {
    let mut by_bus: BTreeMap<String, Vec<(usize, usize, usize)>> = BTreeMap::new();
    let mut at = 0;
    for line in aliases.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let Some(rest) = line.strip_prefix("alias ") else { continue };
        // A pattern may hold spaces (DMI strings do not, but their globs may); the module never does.
        let Some((pattern, _)) = rest.trim_end().rsplit_once(' ') else { continue };
        let first = start + "alias ".len();
        let bus = pattern.split_once(':').map_or("", |(bus, _)| bus);
        let bus = if bus.contains(['*', '?', '[']) { "" } else { bus };
        by_bus.entry(bus.to_owned()).or_default().push((first, first + pattern.len(), end));
    }
    by_bus
}

/// fnmatch(3) without flags, as kmod uses it: `*`, `?`, `[a-z]`, `[!a-z]`, and backslash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|byte| one(pattern, p, *byte)),
        };
        match (step, star) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, from))) if from < text.len() => {
                star = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Match one byte at `p`; where the pattern goes on if it does.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match class(pattern, p + 1) {
            Some((set, negated, next)) => {
                let inside = set.iter().any(|(low, high)| (*low..=*high).contains(&byte));
                (inside != negated).then_some(next)
            }
            None => (byte == b'[').then_some(p + 1),
        },
        b'\\' => (byte == *pattern.get(p + 1)?).then_some(p + 2),
        literal => (byte == literal).then_some(p + 1),
    }
}

type Class = (Vec<(u8, u8)>, bool, usize);

fn class(pattern: &[u8], mut at: usize) -> Option<Class> {
    let negated = matches!(pattern.get(at)?, b'!' | b'^');
    at += usize::from(negated);
    let first = at;
    let mut set = Vec::new();
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((set, negated, at + 1));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                set.push((low, *high));
                at += 3;
            }
            _ => {
                set.push((low, low));
                at += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
