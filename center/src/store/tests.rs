use super::*;
use crate::records::NameClaim;
use lodge_model::ids::NodeId;

fn claim(name: &str) -> NameClaim {
    NameClaim { name: name.into(), node: NodeId(uuid::Uuid::from_u128(7)) }
}

#[test]
fn a_refused_transaction_leaves_nothing() {
    let store = Store::in_memory();
    let refused = store.transact_blocking(|tx| {
        tx.put(&claim("node1"))?;
        Err::<(), _>(Fault::conflict("no"))
    });
    assert!(refused.is_err());
    let found = store.transact_blocking(|tx| tx.list::<NameClaim>()).unwrap();
    assert!(found.is_empty());
}

#[test]
fn records_survive_a_restart_and_events_are_numbered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("center.db");
    let store = Store::open(&path).unwrap();
    let at = jiff::Timestamp::UNIX_EPOCH;
    let event = |text: &str| EventDraft { at, machine: None, node: None, kind: "note", text: text.into(), detail: None };
    store
        .transact_blocking(|tx| {
            tx.put(&claim("node1"))?;
            tx.log(&event("one"))?;
            tx.log(&event("two"))
        })
        .unwrap();
    for name in ["center.db", "center.db-wal", "center.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read {name}");
    }
    drop(store);
    let store = Store::open(&path).unwrap();
    let (names, events) = store.transact_blocking(|tx| Ok((tx.list::<NameClaim>()?, tx.events_after(1, None)?))).unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!((events[0].id, events[0].text.as_str(), events.len()), (2, "two", 1));
}

#[test]
fn only_a_transaction_that_says_so_wakes() {
    let store = Store::in_memory();
    let changes = store.changes();
    store.transact_blocking(|tx| tx.put(&claim("a"))).unwrap();
    assert!(!changes.has_changed().unwrap());
    store
        .transact_blocking(|tx| {
            tx.wake();
            tx.put(&claim("b"))
        })
        .unwrap();
    assert!(changes.has_changed().unwrap());
}
