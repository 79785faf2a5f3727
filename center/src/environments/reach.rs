//! Whether an environment that has moved is reached at its addresses: asked of a node that it does not run on. Pure but for `take_in`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use lodge_model::ids::NodeId;
use lodge_model::reach::{Reach, ReachView, Reached};
use serde::{Deserialize, Serialize};

use super::place::Room;
use super::reconcile;
use super::records::{Environment, Goal};
use super::settle::Cluster;
use crate::failover::incident;
use crate::fault::Fault;
use crate::store::Tx;

/// An answer that has not come by then does not come any more.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// An environment that has moved, and has not been tried yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The epoch it came with.
    pub epoch: u64,
    /// When it ran.
    pub since: Timestamp,
    /// The node that tries it.
    pub by: Option<(NodeId, String)>,
    /// It was taken over from a dead node in this incident; it has moved otherwise.
    #[serde(default)]
    pub incident: Option<u64>,
}

/// Have each that has moved tried by a node, and give up what nobody answers.
pub fn assign(cluster: &mut Cluster, now: Timestamp) {
    for environment in cluster.environments.values_mut() {
        let Some(check) = &mut environment.check else { continue };
        let here = environment.place.as_ref().filter(|_| environment.goal == Goal::Running && environment.epoch == check.epoch);
        let Some(here) = here else {
            environment.check = None;
            continue;
        };
        let is_good = |room: &&Room| room.node != here.node && room.unready.is_empty() && room.silent.is_empty();
        let keeps = |by: &(NodeId, String)| cluster.rooms.iter().any(|room| room.node == by.0 && is_good(&room));
        if !check.by.as_ref().is_some_and(keeps) {
            // A machine that runs no environments is the center, or near it.
            let best = cluster.rooms.iter().filter(is_good).min_by_key(|room| (room.is_worker, room.node));
            check.by = best.map(|room| (room.node, room.name.clone()));
        }
        if now.duration_since(check.since) >= PATIENCE {
            let problem = "nobody could try it".to_owned();
            conclude(environment, Reached { id: environment.id, epoch: environment.epoch, ms: 0, problem });
        }
    }
}

/// What each node is to try.
pub fn orders(cluster: &Cluster) -> BTreeMap<NodeId, Vec<Reach>> {
    let mut orders: BTreeMap<NodeId, Vec<Reach>> = BTreeMap::new();
    for environment in cluster.environments.values() {
        let Some((by, _)) = environment.check.as_ref().and_then(|check| check.by.as_ref()) else { continue };
        orders.entry(*by).or_default().push(Reach {
            id: environment.id,
            epoch: environment.epoch,
            addresses: environment.addresses_now().0.iter().map(|address| address.ip).collect(),
            mac: environment.mac.clone(),
        });
    }
    orders
}

/// An answer of a node that was asked.
pub fn take_in(tx: &Tx, node: NodeId, said: &Reached, now: Timestamp) -> Result<(), Fault> {
    let Some(before) = tx.get::<Environment>(&said.id)? else { return Ok(()) };
    let by = before.check.as_ref().filter(|check| check.epoch == said.epoch).and_then(|check| check.by.as_ref());
    if by.is_none_or(|by| by.0 != node) {
        return Ok(());
    }
    let mut environment = before.clone();
    let incident = before.check.as_ref().and_then(|check| check.incident);
    if let (Some(incident), Some((_, by))) = (incident, by) {
        incident::reached(tx, incident, &before.spec.name, by, said, now)?;
    }
    conclude(&mut environment, said.clone());
    if !said.problem.is_empty() {
        let name = &environment.spec.name;
        reconcile::log(tx, &environment, &format!("{name} has moved and is not reached: {}", said.problem), now)?;
    }
    tx.replan();
    reconcile::save(tx, &mut environment, Some(&before), now)
}

fn conclude(environment: &mut Environment, said: Reached) {
    let Some(check) = environment.check.take() else { return };
    let from = check.by.map_or("no node".to_owned(), |(_, name)| name);
    if check.incident.is_none()
        && let Some(done) = environment.moves.last_mut()
    {
        done.reach = Some(ReachView { from, ms: said.ms, problem: said.problem });
    }
}

#[cfg(test)]
mod tests {
    use lodge_model::drain::{MoveView, Settings};
    use lodge_model::environment::order::Want;

    use super::*;
    use crate::environments::testing::{environment, environment_id, node_id, place, room};
    use crate::testing::at;

    fn cluster() -> Cluster {
        let mut moved = environment("web1", 1);
        (moved.epoch, moved.place) = (2, Some(place(2, Want::Running)));
        moved.check = Some(Check { epoch: 2, since: at(100), by: None, incident: None });
        moved.moves.push(MoveView {
            from: "node1".into(),
            to: Some("node2".into()),
            way: "restart".into(),
            because: String::new(),
            not_live: None,
            at: Some(at(100)),
            stop_ms: None,
            gap_ms: None,
            note: String::new(),
            reach: None,
        });
        let mut center = room(9, 0);
        center.is_worker = false;
        Cluster {
            environments: BTreeMap::from([(moved.id, moved)]),
            tasks: BTreeMap::new(),
            rooms: vec![room(1, 1000), room(2, 1000), center],
            drains: BTreeMap::new(),
            rolling: None,
            settings: Settings::default(),
            listens: true,
        }
    }

    fn by(cluster: &Cluster) -> Option<NodeId> {
        cluster.environments[&environment_id(1)].check.as_ref()?.by.as_ref().map(|by| by.0)
    }

    #[test]
    fn it_is_tried_from_the_centers_side_and_from_another_node_where_that_is_away() {
        let mut cluster = cluster();
        assign(&mut cluster, at(101));
        assert_eq!((by(&cluster), orders(&cluster)[&node_id(9)].len()), (Some(node_id(9)), 1));
        cluster.rooms[2].unready = "no share".into();
        assign(&mut cluster, at(102));
        assert_eq!(by(&cluster), Some(node_id(1)), "not by its own node");
        assert!(!orders(&cluster).contains_key(&node_id(9)));
    }

    #[test]
    fn one_that_nobody_tries_is_said_to_be_so_and_one_that_moved_on_is_dropped() {
        let mut late = cluster();
        late.rooms.truncate(2);
        late.rooms[0].silent = "gone".into();
        assign(&mut late, at(160));
        let environment = &late.environments[&environment_id(1)];
        let reach = environment.moves[0].reach.clone().unwrap();
        assert_eq!((environment.check.is_none(), reach.problem.as_str()), (true, "nobody could try it"));
        let mut gone = cluster();
        gone.environments.get_mut(&environment_id(1)).unwrap().epoch = 3;
        assign(&mut gone, at(101));
        assert!(gone.environments[&environment_id(1)].check.is_none());
    }
}
