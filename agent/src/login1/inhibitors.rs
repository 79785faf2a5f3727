//! Who holds a shutdown back: the bookkeeping, without bus or descriptors.
//!
//! The words are logind's (systemd-logind, org.freedesktop.login1(5)): `what` is a list of operations with colons between, `mode`
//! is `block`, `block-weak` or `delay`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// No more than this many at a time.
pub const MAX: usize = 1024;

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[allow(missing_docs)]
        pub enum $type { $($variant),+ }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $word),+ })
            }
        }

        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($type::$variant),)+
                    _ => Err(format!("{text:?} is not one of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}

words!(
    /// What can be held back, in logind's order. All are taken and listed; Lodge only ever does `shutdown`, and knows one key.
    Operation {
        Shutdown = "shutdown",
        Sleep = "sleep",
        Idle = "idle",
        HandlePowerKey = "handle-power-key",
        HandleSuspendKey = "handle-suspend-key",
        HandleHibernateKey = "handle-hibernate-key",
        HandleLidSwitch = "handle-lid-switch",
        HandleRebootKey = "handle-reboot-key",
    }
);

words!(
    /// How hard.
    Mode {
        Block = "block",
        BlockWeak = "block-weak",
        Delay = "delay",
    }
);

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inhibitor {
    /// The operations it holds back.
    pub what: BTreeSet<Operation>,
    /// Who, for people.
    pub who: String,
    /// Why, for people.
    pub why: String,
    /// How hard.
    pub mode: Mode,
    /// User of the process that took it.
    pub uid: u32,
    /// Process that took it.
    pub pid: u32,
}

impl Inhibitor {
    /// Check what a caller asks for.
    pub fn ask(what: &str, who: &str, why: &str, mode: &str, uid: u32, pid: u32) -> Result<Self, String> {
        let what: BTreeSet<Operation> = what.split(':').map(str::parse).collect::<Result<_, _>>()?;
        let mode: Mode = mode.parse()?;
        let can_delay = |operation: &Operation| matches!(operation, Operation::Shutdown | Operation::Sleep);
        if mode == Mode::Delay && !what.iter().all(can_delay) {
            return Err("only shutdown and sleep can be delayed".into());
        }
        Ok(Self { what, who: who.to_owned(), why: why.to_owned(), mode, uid, pid })
    }

    /// The operations, as they were asked for.
    pub fn what(&self) -> String {
        join(self.what.iter())
    }
}

impl fmt::Display for Inhibitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (process {}): {}", self.who, self.pid, self.why)
    }
}

/// All locks, by a number that is never used twice.
#[derive(Debug, Default)]
pub struct Book {
    next: u64,
    locks: BTreeMap<u64, Inhibitor>,
}

impl Book {
    /// Take one in; `None` when there are too many.
    pub fn add(&mut self, inhibitor: Inhibitor) -> Option<u64> {
        if self.locks.len() >= MAX {
            return None;
        }
        let id = self.next;
        self.restore(id, inhibitor);
        Some(id)
    }

    /// Take one in that was there before the agent was restarted.
    pub fn restore(&mut self, id: u64, inhibitor: Inhibitor) {
        self.next = self.next.max(id + 1);
        self.locks.insert(id, inhibitor);
    }

    /// Let one go.
    pub fn release(&mut self, id: u64) -> Option<Inhibitor> {
        self.locks.remove(&id)
    }

    /// All, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Inhibitor> {
        self.locks.values()
    }

    /// Those that hold one of these operations back until they are released. `block-weak` ones do not bind root, who is the only
    /// one who can shut a node down.
    pub fn blocking<'a>(&'a self, operations: &'a [Operation]) -> impl Iterator<Item = &'a Inhibitor> {
        self.holding(Mode::Block, operations)
    }

    /// Those that delay one of these operations for a limited time.
    pub fn delaying<'a>(&'a self, operations: &'a [Operation]) -> impl Iterator<Item = &'a Inhibitor> {
        self.holding(Mode::Delay, operations)
    }

    /// The operations that are held back in this mode, with colons between.
    pub fn inhibited(&self, mode: Mode) -> String {
        let held: BTreeSet<&Operation> = self.all().filter(|lock| lock.mode == mode).flat_map(|lock| &lock.what).collect();
        join(held.into_iter())
    }

    fn holding<'a>(&'a self, mode: Mode, operations: &'a [Operation]) -> impl Iterator<Item = &'a Inhibitor> {
        self.all().filter(move |lock| lock.mode == mode && operations.iter().any(|operation| lock.what.contains(operation)))
    }
}

fn join<'a>(operations: impl Iterator<Item = &'a Operation>) -> String {
    operations.map(ToString::to_string).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOWN: [Operation; 1] = [Operation::Shutdown];

    fn lock(what: &str, mode: &str) -> Inhibitor {
        Inhibitor::ask(what, "backup", "copying", mode, 0, 7).unwrap()
    }

    #[test]
    fn only_what_is_held_in_that_mode_is_held() {
        let mut book = Book::default();
        let block = book.add(lock("sleep:shutdown", "block")).unwrap();
        book.add(lock("shutdown", "delay")).unwrap();
        book.add(lock("idle:handle-power-key", "block-weak")).unwrap();
        assert_eq!((book.blocking(&DOWN).count(), book.delaying(&DOWN).count()), (1, 1));
        assert_eq!(book.inhibited(Mode::Block), "shutdown:sleep");
        assert_eq!(book.inhibited(Mode::BlockWeak), "idle:handle-power-key");
        assert!(book.release(block).is_some() && book.release(block).is_none());
        assert_eq!(book.blocking(&DOWN).count(), 0);
        assert_eq!(book.inhibited(Mode::Block), "");
    }

    #[test]
    fn a_number_is_never_used_twice() {
        let mut book = Book::default();
        book.restore(41, lock("shutdown", "block"));
        assert_eq!(book.add(lock("shutdown", "block")), Some(42));
        book.release(42);
        assert_eq!(book.add(lock("shutdown", "block")), Some(43));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut book = Book::default();
        for _ in 0..MAX {
            book.add(lock("idle", "block")).unwrap();
        }
        assert_eq!(book.add(lock("idle", "block")), None);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        for (what, mode, word) in [
            ("shutdown:dance", "block", "dance"),
            ("", "block", "\"\""),
            ("shutdown", "hard", "hard"),
            ("idle", "delay", "delayed"),
        ] {
            let error = Inhibitor::ask(what, "w", "y", mode, 0, 1).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(what in ".{0,40}", mode in ".{0,12}") {
            let _ = Inhibitor::ask(&what, "w", "y", &mode, 0, 1);
        }
    }
}
