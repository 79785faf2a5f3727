use super::*;
use crate::testing::{self, at, disk, facts};

const NO_NAMES: &BTreeSet<String> = &BTreeSet::new();

fn auto() -> SiteAnswer {
    SiteAnswer { admit: Admit::Auto, ..SiteAnswer::default() }
}

fn case<'a>(facts: &'a Facts, site: &'a SiteAnswer) -> Case<'a> {
    Case { facts, asked_name: None, site, order: None, node: None, ticket: None, names: NO_NAMES, no_bundle: None, now: at(0) }
}

fn granted(verdict: Verdict) -> Grant {
    match verdict {
        Verdict::Grant(grant) => grant,
        other => panic!("{other:?}"),
    }
}

fn waits(verdict: Verdict) -> String {
    match verdict {
        Verdict::Wait(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blank_machine_is_admitted_at_once_or_after_an_operators_word() {
    let facts = facts(2, vec![disk("S1", None)]);
    let (auto, ask) = (auto(), SiteAnswer::default());
    let grant = granted(decide(&case(&facts, &auto)));
    assert_eq!((grant.name.as_str(), grant.disk_serial.as_str(), grant.wipe), ("node1", "S1", false));
    assert_eq!(grant.roles, [Role::Worker]);
    let reason = waits(decide(&case(&facts, &ask)));
    assert!(reason.contains("lodge node approve"), "{reason}");
    let order = InstallOrder { name: Some("db7".into()), ..InstallOrder::default() };
    let approved = Case { order: Some(&order), ..case(&facts, &ask) };
    assert_eq!(granted(decide(&approved)).name, "db7");
}

#[test]
fn two_disks_wait_until_one_is_named() {
    let facts = facts(2, vec![disk("S1", None), disk("S2", None)]);
    let site = auto();
    let reason = waits(decide(&case(&facts, &site)));
    assert!(reason.contains("S1") && reason.contains("S2"), "{reason}");
    let order = InstallOrder { disk: Some("S2".into()), ..InstallOrder::default() };
    assert_eq!(granted(decide(&Case { order: Some(&order), ..case(&facts, &site) })).disk_serial, "S2");
}

#[test]
fn a_disk_that_holds_something_needs_wipe() {
    let facts = facts(2, vec![disk("S1", Some("ext4"))]);
    let site = auto();
    assert!(waits(decide(&case(&facts, &site))).contains("ext4"));
    let order = InstallOrder { wipe: true, ..InstallOrder::default() };
    assert!(granted(decide(&Case { order: Some(&order), ..case(&facts, &site) })).wipe);
}

#[test]
fn names_follow_each_other_and_a_free_wish_is_granted() {
    let facts = facts(2, vec![disk("S1", None)]);
    let site = auto();
    let names: BTreeSet<String> = ["node1", "node2", "center1"].map(str::to_owned).into();
    let named = |asked| granted(decide(&Case { names: &names, asked_name: asked, ..case(&facts, &site) })).name;
    assert_eq!(named(None), "node3");
    assert_eq!(named(Some("web")), "web");
    assert_eq!(named(Some("center1")), "node3");
    assert_eq!(named(Some("No Name")), "node3");
}

#[test]
fn a_complete_node_boots_its_disk_and_a_reinstall_gives_its_ticket() {
    let facts = facts(2, vec![disk("S1", Some("gpt"))]);
    let site = auto();
    let node = testing::registered("node1", 2, "10.0.0.2");
    assert_eq!(decide(&Case { node: Some(&node), ..case(&facts, &site) }), Verdict::BootDisk);
    let mut ticket = testing::ticket(2, "S1", 0);
    ticket.ticket.wipe = true;
    assert_eq!(decide(&Case { node: Some(&node), ticket: Some(&ticket), ..case(&facts, &site) }), Verdict::Give);
    let late = Case { now: at(3601), node: Some(&node), ticket: Some(&ticket), ..case(&facts, &site) };
    assert_eq!(decide(&late), Verdict::BootDisk);
    ticket.state = TicketState::Done;
    assert_eq!(decide(&Case { node: Some(&node), ticket: Some(&ticket), ..case(&facts, &site) }), Verdict::BootDisk);
}

#[test]
fn after_a_power_cut_the_same_disk_may_be_overwritten_and_no_other() {
    let site = auto();
    let node = testing::admitted("node1", 2);
    let mut ticket = testing::ticket(2, "S1", 0);
    ticket.state = TicketState::Used;
    let half_written = facts(2, vec![disk("S1", Some("gpt")), disk("S2", Some("ext4"))]);
    let again = Case { node: Some(&node), ticket: Some(&ticket), ..case(&half_written, &site) };
    let grant = granted(decide(&again));
    assert_eq!((grant.disk_serial.as_str(), grant.wipe, grant.name.as_str()), ("S1", true, "node1"));
    let other_disk = facts(2, vec![disk("S2", Some("ext4"))]);
    assert!(waits(decide(&Case { facts: &other_disk, ..again })).contains("S1"));
}

#[test]
fn an_expired_begun_installation_assumes_nothing() {
    let site = auto();
    let mut ticket = testing::ticket(2, "S1", 0);
    ticket.state = TicketState::Used;
    let facts = facts(2, vec![disk("S1", Some("gpt"))]);
    let node = testing::admitted("node1", 2);
    let late = Case { now: at(4000), ticket: Some(&ticket), ..case(&facts, &site) };
    assert!(waits(decide(&Case { node: Some(&node), ..late })).contains("gpt"));
    let node = testing::registered("node1", 2, "10.0.0.2");
    let late = Case { now: at(4000), ticket: Some(&ticket), ..case(&facts, &site) };
    assert!(waits(decide(&Case { node: Some(&node), ..late })).contains("lodge node reinstall node1"));
}

#[test]
fn an_unused_ticket_follows_the_disk() {
    let site = auto();
    let node = testing::admitted("node1", 2);
    let ticket = testing::ticket(2, "S1", 0);
    let swapped = facts(2, vec![disk("S9", None)]);
    let grant = granted(decide(&Case { node: Some(&node), ticket: Some(&ticket), ..case(&swapped, &site) }));
    assert_eq!(grant.disk_serial, "S9");
}

#[test]
fn without_a_bundle_nothing_is_granted() {
    let site = auto();
    let facts = facts(2, vec![disk("S1", None)]);
    let none = Case { no_bundle: Some("there is no bundle"), ..case(&facts, &site) };
    assert_eq!(waits(decide(&none)), "there is no bundle");
}
