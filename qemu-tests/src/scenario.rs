//! What demo and tests have in common: a whole site from bare machines, without one key pressed.

use anyhow::{Context, Result, bail};

use crate::{
    api::Operator,
    rack::{self, CENTER, INSTALL_LIMIT, Rack},
    timeline,
};

/// A site whose machines are all ready.
pub struct Site {
    /// The rack.
    pub rack: Rack,
    /// Its operator.
    pub operator: Operator,
    /// Numbers of its nodes.
    pub nodes: Vec<u8>,
}

/// Install a center machine from the ISO, then blank nodes from the network, all at once, and wait until every one is ready.
pub fn install(rack: &mut Rack, nodes: u8) -> Result<Operator> {
    let operator = start_center(rack)?;
    let numbers: Vec<u8> = (1..=nodes).collect();
    start_nodes(rack, &numbers)?;
    for number in numbers {
        rack.machine(&rack::node_name(number))?.wait_ready(0, INSTALL_LIMIT)?;
    }
    Ok(operator)
}

impl Site {
    /// Names of the nodes, without the center.
    pub fn node_names(&self) -> Vec<String> {
        self.nodes.iter().map(|number| rack::node_name(*number)).collect()
    }
}

/// How long each machine of a rack took from power-on to ready, by phase.
pub fn timelines(rack: &Rack) -> String {
    let mut text = String::new();
    for machine in rack.machines() {
        let Some(start) = machine.first_on else { continue };
        let phases = machine.console.lines.read(0, |lines| timeline::phases(start, lines));
        text += &format!("{}\n{}", machine.spec.name, timeline::table(&phases));
    }
    text
}

/// Build, switch on and wait for the center machine.
pub fn start_center(rack: &mut Rack) -> Result<Operator> {
    let spec = rack::center_spec(&rack.artifacts);
    rack.add(spec)?.switch_on()?;
    rack.machine(CENTER)?.wait_ready(0, INSTALL_LIMIT).context("installing the center machine")?;
    let operator = rack.operator(INSTALL_LIMIT)?;
    let patience = rack.host.patience().to_string();
    // Moves are by a restart where a test does not say otherwise: what they show is told by what starts anew.
    operator.lodge(&["cluster", "set", "--patience", &patience, "--spare", "false", "--move", "restart"])?;
    Ok(operator)
}

/// Build and switch on blank nodes, all at once.
pub fn start_nodes(rack: &mut Rack, numbers: &[u8]) -> Result<()> {
    for number in numbers {
        rack.add(rack::node_spec(*number))?.switch_on()?;
    }
    Ok(())
}

/// Fail with `what` unless it holds.
pub fn hold(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { bail!(what()) }
}
