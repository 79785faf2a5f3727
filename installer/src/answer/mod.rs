//! The answer, put together from every place it can come from. Order and precedence are here and nowhere else: command line,
//! medium, own disk's ESP, SMBIOS, the place the machine was booted from, DHCP.

pub mod local;
pub mod remote;

use lodge_model::{
    answer::{Answer, Then},
    disk::DiskRule,
    node::Role,
};

/// An answer and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// For people.
    pub place: String,
    /// What it says.
    pub answer: Answer,
    /// Somebody put it into this machine (a medium, the ESP of its disk): its `[disk]` is a permission to write.
    pub in_hand: bool,
}

/// Everything that the sources say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The answer: of each section the first that was given.
    pub answer: Answer,
    /// Where the center was named.
    pub center_place: String,
    /// Where the permission to write came from.
    pub disk_place: String,
}

impl Gathered {
    /// Whether all is here that an installation without a center needs: the machine is to be one itself, and a `[disk]` that
    /// somebody put into it.
    pub fn offline(&self) -> Option<&DiskRule> {
        let is_center = self.answer.node.roles.contains(&Role::Center);
        self.answer.disk.as_ref().filter(|_| is_center && self.answer.center.is_none())
    }
}

/// Put the sources together, the first one weighing most.
pub fn merge(sources: &[Source]) -> Gathered {
    let mut all = Gathered::default();
    for Source { place, answer, in_hand } in sources {
        let Answer { center, node, disk, network, install, site } = answer.clone();
        if all.answer.center.is_none() && center.is_some() {
            all.answer.center = center;
            all.center_place.clone_from(place);
        }
        if all.answer.disk.is_none() && disk.is_some() && *in_hand {
            all.answer.disk = disk;
            all.disk_place.clone_from(place);
        }
        let answer = &mut all.answer;
        answer.node.name = answer.node.name.take().or(node.name);
        if answer.node.roles.is_empty() {
            answer.node.roles = node.roles;
        }
        answer.network = answer.network.take().or(network);
        answer.site = answer.site.take().or(site);
        answer.install.bundle = answer.install.bundle.take().or(install.bundle);
        answer.install.dry_run |= install.dry_run;
        if answer.install.then == Then::default() {
            answer.install.then = install.then;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(place: &str, in_hand: bool, text: &str) -> Source {
        Source { place: place.into(), answer: Answer::parse(text, place).unwrap(), in_hand }
    }

    fn center(url: &str) -> String {
        format!("[center]\nurl = \"{url}\"\nca = \"sha256:{}\"\ntoken = \"t\"\n", "ab".repeat(32))
    }

    #[test]
    fn the_first_source_that_names_a_center_wins_and_others_fill_in() {
        let all = merge(&[
            source("one", false, "[node]\nname = \"a\""),
            source("two", false, &center("https://two:1")),
            source("three", true, &format!("{}[node]\nname = \"b\"\nroles = [\"worker\"]", center("https://three:1"))),
        ]);
        assert_eq!(all.answer.center.unwrap().url, "https://two:1");
        assert_eq!(all.center_place, "two");
        assert_eq!(all.answer.node.name.as_deref(), Some("a"));
        assert_eq!(all.answer.node.roles, [Role::Worker]);
    }

    #[test]
    fn only_what_is_in_hand_permits_a_write() {
        let disk = "[disk]\nserial = \"X\"\n[node]\nroles = [\"center\", \"share\"]";
        let far = merge(&[source("http://somewhere", false, disk)]);
        assert_eq!((far.answer.disk.as_ref(), far.offline()), (None, None));
        let near = merge(&[source("http://somewhere", false, disk), source("the medium", true, disk)]);
        assert_eq!(near.offline(), Some(&DiskRule::by_serial("X")));
        assert_eq!(near.disk_place, "the medium");
    }

    #[test]
    fn a_machine_with_a_center_is_never_installed_without_its_ticket() {
        let both = format!("{}[disk]\nserial = \"X\"\n[node]\nroles = [\"center\"]", center("https://one:1"));
        assert_eq!(merge(&[source("the medium", true, &both)]).offline(), None);
        let worker = "[disk]\nserial = \"X\"\n[node]\nroles = [\"worker\"]";
        assert_eq!(merge(&[source("the medium", true, worker)]).offline(), None);
    }
}
