use jiff::SignedDuration;
use lodge_model::environment::order::{TaskOutcome, TemplateMeta};
use lodge_model::ids::BootId;
use uuid::Uuid;

use super::*;
use crate::store::Store;
use crate::testing::at;

fn digest(number: u8) -> Digest {
    Digest::from_digest([number; 32])
}

fn image(number: u8) -> TemplateRef {
    TemplateRef { digest: digest(number), size: 7, meta: TemplateMeta::default() }
}

fn made(number: u8) -> TaskOutcome {
    TaskOutcome::Done { bytes: 0, template: Some(image(number)) }
}

fn failed() -> TaskOutcome {
    TaskOutcome::Failed { error: "etc/../../x: leads out of the archive".into() }
}

fn ordered(tx: &Tx) -> Vec<TaskKind> {
    tx.list::<Task>().unwrap().into_iter().map(|task| task.what).collect()
}

/// A node does the only task there is.
fn conclude(tx: &Tx, outcome: &TaskOutcome, second: i64) {
    let task = tx.list::<Task>().unwrap().pop().unwrap();
    tx.delete::<Task>(&task.id).unwrap();
    told(tx, task.id, outcome, at(second)).unwrap();
}

fn ready(tx: &Tx, name: &str, number: u8) {
    import(tx, name, &digest(100 + number), 5, at(0)).unwrap();
    conclude(tx, &made(number), 1);
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Fault>) -> (u16, String) {
    match result {
        Err(Fault::Refused(status, why)) => (status.as_u16(), why),
        other => panic!("{other:?}"),
    }
}

fn within(work: impl Fn(&Tx)) {
    Store::in_memory()
        .transact_blocking(|tx| {
            work(tx);
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_upload_becomes_a_template() {
    within(|tx| {
        let view = import(tx, "tiny", &digest(9), 5, at(0)).unwrap();
        assert_eq!((view.digest, view.reason.as_str()), (None, "waits for a node that is ready"));
        assert_eq!(ordered(tx), [TaskKind::ImportTemplate { upload: digest(9) }]);
        assert_eq!(uploads(tx).unwrap(), [digest(9)]);
        assert_eq!(refusal(find(tx, "tiny")).0, 409);
        assert_eq!(refusal(import(tx, "tiny", &digest(9), 5, at(0))).0, 409);

        let node = NodeId(Uuid::from_u128(1));
        assert!(!may_fetch(tx, node, &digest(9)).unwrap());
        let task = tx.list::<Task>().unwrap().pop().unwrap();
        let outcome = TaskOutcome::Running { percent: 40 };
        tx.put(&Task { node: Some((node, BootId(Uuid::from_u128(2)))), outcome: outcome.clone(), ..task }).unwrap();
        assert!(may_fetch(tx, node, &digest(9)).unwrap() && !may_fetch(tx, node, &digest(8)).unwrap());
        let going_on = flow::view(tx, "tiny").unwrap();
        assert_eq!((going_on.outcome, going_on.reason.as_str()), (outcome, ""));
        assert!(going_on.version != view.version);
        assert_eq!(refusal(remove(tx, "tiny", at(1))).0, 409);

        conclude(tx, &made(1), 2);
        assert_eq!(find(tx, "tiny").unwrap(), image(1));
        assert_eq!(find(tx, &digest(1).to_string()).unwrap(), image(1));
        assert_eq!(refusal(find(tx, &digest(2).to_string())).0, 422);
        assert!(refusal(find(tx, "tnyi")).1.contains("lodge template ls"));
        assert!(uploads(tx).unwrap().is_empty());
        assert_eq!(flow::view(tx, "tiny").unwrap().digest, Some(digest(1)));
    });
}

#[test]
fn a_failed_import_says_why_and_may_be_tried_again() {
    within(|tx| {
        import(tx, "tiny", &digest(9), 5, at(0)).unwrap();
        conclude(tx, &failed(), 1);
        assert_eq!(flow::view(tx, "tiny").unwrap().outcome, failed());
        assert!(refusal(find(tx, "tiny")).1.contains("leads out of the archive"));
        assert!(uploads(tx).unwrap().is_empty());
        ready(tx, "tiny", 1);
        assert!(find(tx, "tiny").is_ok());
        import(tx, "other", &digest(9), 5, at(2)).unwrap();
        conclude(tx, &failed(), 3);
        remove(tx, "other", at(4)).unwrap();
        assert!(ordered(tx).is_empty(), "there is no image to remove");
    });
}

#[test]
fn an_image_goes_with_its_last_name() {
    within(|tx| {
        ready(tx, "tiny", 1);
        ready(tx, "small", 1);
        remove(tx, "tiny", at(2)).unwrap();
        assert!(ordered(tx).is_empty());
        remove(tx, "small", at(3)).unwrap();
        assert_eq!(ordered(tx), [TaskKind::RemoveTemplate { digest: digest(1) }]);
        assert_eq!(refusal(remove(tx, "small", at(3))).0, 404);

        // While it is being removed nothing is imported: it could be the same image.
        let view = import(tx, "again", &digest(9), 5, at(4)).unwrap();
        assert_eq!((ordered(tx).len(), view.reason.as_str()), (1, "waits until unused images are removed"));
        conclude(tx, &TaskOutcome::Done { bytes: 0, template: None }, 5);
        assert_eq!(ordered(tx), [TaskKind::ImportTemplate { upload: digest(9) }]);
    });
}

#[test]
fn a_removal_that_fails_is_tried_again_unless_the_image_has_a_name_again() {
    within(|tx| {
        ready(tx, "tiny", 1);
        remove(tx, "tiny", at(2)).unwrap();
        conclude(tx, &TaskOutcome::Failed { error: "the share is away".into() }, 3);
        assert!(ordered(tx).is_empty());
        look_around(tx, at(4)).unwrap();
        assert!(ordered(tx).is_empty(), "it was tried again at once");
        look_around(tx, at(3) + SignedDuration::from_mins(2)).unwrap();
        assert_eq!(ordered(tx).len(), 1);

        conclude(tx, &TaskOutcome::Failed { error: "the share is away".into() }, 200);
        ready(tx, "tiny", 1);
        look_around(tx, at(10_000)).unwrap();
        assert!(ordered(tx).is_empty(), "the image has a name");
    });
}

#[test]
fn an_import_that_no_node_has_begun_can_be_withdrawn() {
    within(|tx| {
        import(tx, "tiny", &digest(9), 5, at(0)).unwrap();
        remove(tx, "tiny", at(1)).unwrap();
        assert!(ordered(tx).is_empty() && uploads(tx).unwrap().is_empty());
    });
}
