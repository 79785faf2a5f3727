//! The orders of a node: its whole slice of the desired state, computed from the records. Pure.
//!
//! Nothing counts changes: orders are computed again whenever something may have changed, and get the next generation only
//! when they came out different.

use lodge_model::api::{Orders, ShareMount};
use lodge_model::drain::Leave;
use lodge_model::environment::order::{Assignment, Task, TemplateRef};
use lodge_model::fence::FenceOrders;
use lodge_model::ids::NodeId;
use lodge_model::node::Role;
use lodge_model::reach::Reach;

use crate::records::Node;

/// What all nodes' orders have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The registered share node and its address.
    pub share: Option<(NodeId, String)>,
    /// Addresses of all nodes but the share node, in order.
    pub clients: Vec<String>,
}

impl Topology {
    /// Of the nodes there are. With several registered share nodes the one that was admitted first serves.
    pub fn of(nodes: &[Node]) -> Self {
        let share = nodes
            .iter()
            .filter(|node| node.roles.contains(&Role::Share) && node.registered.is_some())
            .min_by_key(|node| (node.admitted, node.id))
            .and_then(|node| Some((node.id, node.address.clone()?)));
        let server = share.as_ref().map(|(id, _)| *id);
        let others = nodes.iter().filter(|node| Some(node.id) != server);
        let mut clients: Vec<String> = others.filter_map(|node| node.address.clone()).collect();
        clients.sort();
        clients.dedup();
        Self { share, clients }
    }

    /// The share that a node mounts: none where there is none yet, and none for the node that serves it.
    pub fn mount_for(&self, node: NodeId) -> Option<ShareMount> {
        let (server, address) = self.share.as_ref()?;
        (*server != node).then(|| ShareMount::Nfs { server: address.clone() })
    }
}

/// Bring a node's orders up to date. Says whether they changed.
pub fn refresh(node: &mut Node, topology: &Topology, reinstall_is_open: bool) -> bool {
    let serves = topology.share.as_ref().is_some_and(|(server, _)| *server == node.id);
    let former = node.orders.take();
    let generation = former.as_ref().map_or(0, |orders| orders.generation);
    let Duties { environments, tasks, warm, leave, absent, reach, fence } = former.as_ref().map(Duties::of).unwrap_or_default();
    let mut orders = Orders {
        generation,
        name: node.name.clone(),
        share: topology.mount_for(node.id),
        exports: if serves { topology.clients.clone() } else { Vec::new() },
        reinstall: node.reinstall.clone().filter(|_| reinstall_is_open),
        register_again: false,
        environments,
        tasks,
        sessions: Vec::new(),
        warm,
        leave,
        absent,
        reach,
        fence,
    };
    if former.as_ref() == Some(&orders) {
        node.orders = former;
        return false;
    }
    orders.generation = generation + 1;
    node.orders = Some(orders);
    true
}

/// That part of a node's orders that says what environments it has, what it does once, and what it prepares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// Environments.
    pub environments: Vec<Assignment>,
    /// Tasks.
    pub tasks: Vec<Task>,
    /// Templates of environments that come.
    pub warm: Vec<TemplateRef>,
    /// What it does once it has been drained.
    pub leave: Option<Leave>,
    /// Nodes whose last words it looks for.
    pub absent: Vec<NodeId>,
    /// Environments that it tries to reach.
    pub reach: Vec<Reach>,
    /// Who is fenced, who is to be asked after.
    pub fence: FenceOrders,
}

impl Duties {
    fn of(orders: &Orders) -> Self {
        let Orders { environments, tasks, warm, leave, absent, reach, fence, .. } = orders.clone();
        Self { environments, tasks, warm, leave, absent, reach, fence }
    }
}

/// Bring that part of a node's orders up to date. Says whether it changed.
pub fn refresh_duties(node: &mut Node, duties: Duties) -> bool {
    match &mut node.orders {
        Some(orders) if Duties::of(orders) != duties => {
            let Duties { environments, tasks, warm, leave, absent, reach, fence } = duties;
            (orders.environments, orders.tasks, orders.warm, orders.leave) = (environments, tasks, warm, leave);
            (orders.absent, orders.reach, orders.fence) = (absent, reach, fence);
            orders.generation += 1;
            true
        }
        _ => false,
    }
}

/// Bring that part of a node's orders up to date that depends on itself alone. Says whether it changed.
pub fn refresh_reinstall(node: &mut Node, reinstall_is_open: bool) -> bool {
    let reinstall = node.reinstall.clone().filter(|_| reinstall_is_open);
    match &mut node.orders {
        Some(orders) if orders.reinstall != reinstall => {
            orders.reinstall = reinstall;
            orders.generation += 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_share_node_exports_to_the_others_and_they_mount_it() {
        let mut share = testing::registered("center1", 1, "10.0.0.1");
        share.roles = vec![Role::Center, Role::Share];
        let mut worker = testing::registered("node1", 2, "10.0.0.2");
        let mut joining = testing::admitted("node2", 3);
        joining.address = Some("10.0.0.3".into());
        let topology = Topology::of(&[worker.clone(), share.clone(), joining]);

        assert!(refresh(&mut share, &topology, false));
        let orders = share.orders.clone().unwrap();
        assert_eq!(orders.exports, ["10.0.0.2", "10.0.0.3"]);
        assert_eq!(orders.share, None);

        assert!(refresh(&mut worker, &topology, false));
        let orders = worker.orders.clone().unwrap();
        assert_eq!(orders.share, Some(ShareMount::Nfs { server: "10.0.0.1".into() }));
        assert!(orders.exports.is_empty());
    }

    #[test]
    fn the_generation_grows_only_with_a_change() {
        let mut node = testing::registered("node1", 2, "10.0.0.2");
        let empty = Topology::of(&[]);
        assert!(refresh(&mut node, &empty, false));
        assert!(!refresh(&mut node, &empty, false));
        assert_eq!(node.orders.as_ref().unwrap().generation, 1);
        let share = Topology { share: Some((NodeId(uuid::Uuid::from_u128(9)), "10.0.0.9".into())), clients: vec![] };
        assert!(refresh(&mut node, &share, false));
        assert_eq!(node.orders.as_ref().unwrap().generation, 2);
    }

    #[test]
    fn a_reinstall_is_ordered_while_its_ticket_is_open() {
        let mut node = testing::registered("node1", 2, "10.0.0.2");
        node.reinstall = Some(testing::center_answer());
        let empty = Topology::of(&[]);
        refresh(&mut node, &empty, true);
        assert!(node.orders.as_ref().unwrap().reinstall.is_some());
        assert!(refresh_reinstall(&mut node, false));
        assert!(!refresh_reinstall(&mut node, false));
        let orders = node.orders.as_ref().unwrap();
        assert_eq!((orders.generation, &orders.reinstall), (2, &None));
    }
}
