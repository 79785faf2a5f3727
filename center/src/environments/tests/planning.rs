//! A change and the plan that follows from it, as the center's handlers ask for them: nothing else plans here.

use serde::{Deserialize, Serialize};

use super::*;
use crate::center::{Center, Files};
use crate::console::Consoles;
use crate::failover::records::Incident;
use crate::store::Record;
use crate::uploads::Uploads;

/// A record that nobody can read as what its kind says.
#[derive(Serialize, Deserialize)]
struct Broken;

impl Record for Broken {
    const KIND: &'static str = Incident::KIND;

    fn key(&self) -> String {
        "broken".into()
    }
}

fn center(rig: Rig) -> (Center, TempDir) {
    let Rig { store, world, _dir: dir, .. } = rig;
    let (consoles, bundles) = (Consoles::new(dir.path()).unwrap(), crate::boot::bundle::Bundles::new(dir.path()).unwrap());
    let files = Files { consoles, bundles, uploads: Uploads::new(dir.path(), 1).unwrap() };
    (Center::new(store, world, files, None), dir)
}

async fn create(center: &Center) {
    let world = std::sync::Arc::clone(&center.world);
    let now = center.now();
    let work = move |tx: &Tx| request::create(tx, &world, &Caller::Operator, &spec("web1"), false, now);
    center.transact_and_plan(work).await.unwrap();
}

fn stored(center: &Center) -> Environment {
    center.store.transact_blocking(|tx| tx.list::<Environment>()).unwrap().remove(0)
}

#[tokio::test]
async fn what_follows_from_a_change_is_decided_with_it() {
    let mut rig = Rig::new();
    // The center's clock is the host's.
    rig.now = jiff::Timestamp::now().as_second();
    rig.beat(1, vec![]);
    let (center, _dir) = center(rig);
    let plans = center.store.plans();
    create(&center).await;
    assert!(stored(&center).place.is_some(), "{}", stored(&center).waits);
    assert!(!plans.has_changed().unwrap(), "it is planned once more");
}

#[tokio::test]
async fn a_plan_that_fails_takes_nothing_of_the_change_with_it() {
    let rig = Rig::new();
    rig.run(|tx| tx.put(&Broken));
    let (center, _dir) = center(rig);
    let plans = center.store.plans();
    create(&center).await;
    assert_eq!(stored(&center).place, None);
    assert!(plans.has_changed().unwrap(), "nobody is asked to plan again");
}
