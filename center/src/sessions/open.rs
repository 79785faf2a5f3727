//! Who may have a session, and which node is asked for it.

use jiff::Timestamp;
use lodge_model::api::NodeState;
use lodge_model::environment::order::State;
use lodge_model::environment::session::SessionKind;
use lodge_model::ids::{EnvironmentId, NodeId};

use crate::auth::Caller;
use crate::environments::records::Environment;
use crate::environments::request;
use crate::fault::Fault;
use crate::flow::{Whole, World};
use crate::records::Node;
use crate::store::Tx;

/// Where a session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node that has the environment.
    pub node: NodeId,
    /// The environment.
    pub environment: EnvironmentId,
}

/// Where a session of this kind goes, or why there can be none now.
pub fn target(tx: &Tx, world: &World, who: &Caller, name: &str, what: &SessionKind, now: Timestamp) -> Result<Target, Fault> {
    let environment = request::find(tx, who, name)?;
    let node = place(&environment, what).map_err(Fault::conflict)?;
    let record = tx.get::<Node>(&node)?.ok_or_else(|| Fault::conflict(format!("the node of {name} has been forgotten")))?;
    let node_name = record.name.clone();
    let (state, reason) = Whole::of_node(tx, record)?.state(&world.live, now);
    match state {
        NodeState::Ready | NodeState::Registered => Ok(Target { node, environment: environment.id }),
        _ => Err(Fault::conflict(format!("{name} is on {node_name}, which does not answer: {reason}"))),
    }
}

/// The node: the one that runs it for a program, the one that has it for its console, the one that had it last for its log.
fn place(environment: &Environment, what: &SessionKind) -> Result<NodeId, String> {
    let name = &environment.spec.name;
    let place = environment.place.as_ref().map(|place| place.node);
    let runs = environment.report.as_ref().is_some_and(|report| matches!(report.state, State::Running { .. }));
    let start = format!("start it first: lodge env start {name}");
    match what {
        SessionKind::Exec { .. } => place.filter(|_| runs).ok_or_else(|| format!("{name} does not run; {start}")),
        SessionKind::Console => place.ok_or_else(|| format!("{name} is on no node now and has no console; {start}")),
        SessionKind::Log => {
            place.or(environment.last).ok_or_else(|| format!("{name} has never been on a node and has printed nothing yet"))
        }
    }
}
