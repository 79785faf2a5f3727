//! A registered node is written again only by order, and stays the node it was.

use anyhow::{Context, Result};

use super::{Bench, install::BOOT_LIMIT, ready_in_center};
use crate::{
    machine::{Machine, spec::Netboot},
    rack::{self, INSTALL_LIMIT},
    scenario::hold,
};

pub fn run(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let number = *site.nodes.first().context("no node")?;
    let name = rack::node_name(number);
    let machine = site.rack.machine(&name)?;
    machine.run("echo kept > /share/kept-by-the-share; echo gone > /state/written-before")?;
    let (before, tickets) = (site.operator.node(&name)?, tickets_of(&site.operator, &name)?);
    let from = machine.now();
    site.operator.lodge(&["node", "reinstall", &name, "--yes"])?;
    let installed = machine.wait_text(from, "lodge: installed ", INSTALL_LIMIT)?;
    machine.wait_ready(installed, BOOT_LIMIT)?;
    let (after, tickets_after) = (ready_in_center(site, &name)?, tickets_of(&site.operator, &name)?);
    hold(after.node.node == before.node.node, || format!("{name} has become another node: {:?}", after.node.node))?;
    hold(after.node.machine == before.node.machine, || format!("{name} has become another machine"))?;
    hold(after.boot != before.boot, || format!("{name} never restarted"))?;
    hold(after.disk_serial == before.disk_serial, || format!("{name} is on another disk"))?;
    let fresh: Vec<_> = tickets_after.iter().filter(|ticket| !tickets.contains(ticket)).collect();
    hold(fresh.len() == 1, || format!("{} new tickets for one reinstallation", fresh.len()))?;
    machine.run("test ! -e /state/written-before").context("looking whether the disk was written anew")?;
    machine.run("grep kept /share/kept-by-the-share").context("looking whether the share was left alone").map(drop)
}

/// A machine that asks the network first, as many are set up: the center offers it nothing once it is installed.
pub fn network_first(bench: &mut Bench) -> Result<()> {
    let site = bench.site()?;
    let number = *site.nodes.first().context("no node")?;
    let name = rack::node_name(number);
    let tickets = tickets_of(&site.operator, &name)?;
    let machine = site.rack.machine_mut(&name)?;
    hold(machine.spec.netboot == Some(Netboot::Http), || format!("{name} does not boot by HTTP"))?;
    let from = machine.now();
    machine.press_power_button()?;
    machine.wait_off(BOOT_LIMIT)?;
    machine.spec.network_first = true;
    machine.switch_on()?;
    // The firmware asks for a minute before it gives up.
    let ready = machine.wait_ready(from, BOOT_LIMIT * 2);
    machine.spec.network_first = false;
    ready?;
    asked_and_got_nothing(machine, from)?;
    hold(tickets_of(&site.operator, &name)? == tickets, || format!("{name} was given a new ticket"))
}

fn asked_and_got_nothing(machine: &Machine, from: usize) -> Result<()> {
    let says = |text: &str| machine.console.lines.read(from, |lines| lines.iter().any(|line| line.text.contains(text)));
    hold(says(">>Start HTTP Boot over IPv4"), || "the firmware never asked the network".to_owned())?;
    hold(!says("lodge: installed "), || "the machine was installed again".to_owned())
}

fn tickets_of(operator: &crate::api::Operator, name: &str) -> Result<Vec<String>> {
    let tickets = operator.tickets()?;
    Ok(tickets.into_iter().filter(|ticket| ticket.node == name).map(|ticket| ticket.id.to_string()).collect())
}
