use super::*;
use lodge_model::environment::order::{Report as EnvironmentReport, State, Usage};

#[test]
fn orders_older_than_the_newest_are_refused_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generation");
    let mut newest = Generation::read(path.clone());
    assert_eq!(newest.accept(5).unwrap(), Ok(()));
    assert_eq!(newest.accept(5).unwrap(), Ok(()));
    let mut newest = Generation::read(path);
    assert!(newest.accept(4).unwrap().unwrap_err().contains("5 has been seen"));
    assert_eq!(newest.accept(6).unwrap(), Ok(()));
}

#[tokio::test]
async fn another_probe_time_is_not_urgent_and_a_failure_is() {
    let report = |share| Report { share, generation: 1, ..Report::default() };
    let told = report(ShareHealth::Mounted { probe_ms: 3 });
    let (sender, mut receiver) = watch::channel(told.clone());
    let soon = Duration::from_millis(20);
    sender.send_replace(report(ShareHealth::Mounted { probe_ms: 9 }));
    assert!(tokio::time::timeout(soon, urgent(&mut receiver, &told)).await.is_err());
    sender.send_replace(report(ShareHealth::Failed { error: "frozen".into() }));
    tokio::time::timeout(Duration::from_secs(5), urgent(&mut receiver, &told)).await.unwrap();
}

#[tokio::test]
async fn an_environment_that_changes_does_not_wait_for_the_next_beat() {
    let report =
        |state, memory| Reports { environments: vec![environment_report(state, memory)], is_kept: true, ..Reports::default() };
    let told = report(State::Stopping, 1);
    let (sender, mut receiver) = watch::channel(told.clone());
    let soon = Duration::from_millis(20);
    sender.send_replace(report(State::Stopping, 2));
    assert!(tokio::time::timeout(soon, urgent_of_environments(&mut receiver, &told)).await.is_err());
    sender.send_replace(report(State::Released, 2));
    tokio::time::timeout(Duration::from_secs(5), urgent_of_environments(&mut receiver, &told)).await.unwrap();
}

fn environment_report(state: State, memory: u64) -> EnvironmentReport {
    let id = "00000000-0000-0000-0000-000000000005".parse().unwrap();
    EnvironmentReport { usage: Some(Usage { memory, ..Usage::default() }), ..EnvironmentReport::new(id, 1, state) }
}

#[test]
fn this_boot_and_this_kernel_have_names() {
    assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    assert!(!kernel().unwrap().is_empty());
}
