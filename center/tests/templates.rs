//! Templates from the operator's file to the share, and users, through the real program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use lodge_client::{Error, QuotaChange};
use lodge_model::environment::order::{TaskKind, TaskOutcome};
use lodge_model::environment::view::{Quota, TemplateView, UserOrder};
use lodge_model::layout::MIB;
use sha2::{Digest as _, Sha256};
use support::Running;
use support::cluster::{asked, image, pool, running, soon, spec, two_nodes, upload, with_template};

const AUTO: &str = r#"{"admit":"auto"}"#;

fn refused(result: Result<impl Sized, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn uploads(center: &Running) -> Vec<String> {
    let dir = center.data().join("uploads");
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn http(center: &Running, identity: Option<&str>) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(center.data().join("ca.pem")).unwrap()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
    if let Some(identity) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(identity.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn an_archive_becomes_a_template_and_leaves_the_center() {
    let mut center = Running::start(AUTO);
    let (mut share, mut worker) = two_nodes(&center).await;
    let operator = center.as_operator();
    let archive: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = lodge_model::ids::Digest::from_digest(Sha256::digest(&archive).into());
    upload(&operator, "tiny", archive.clone()).await.unwrap();
    assert_eq!(uploads(&center), [digest.hex()]);
    let (status, message) = refused(upload(&operator, "tiny", b"other".to_vec()).await);
    assert!(status == 409 && message.contains("being imported"), "{message}");

    // It outlives the center.
    center.crash();
    let operator = center.as_operator();
    for node in [&mut share, &mut worker] {
        node.center = center.as_node(&node.enrolled);
    }
    let (node, task) = asked([&mut share, &mut worker]).await;
    assert_eq!(task.what, TaskKind::ImportTemplate { upload: digest.clone() });
    let identity = format!("{}{}", node.enrolled.key.0, node.enrolled.reply.certificate);
    let path = format!("{}/api/v1/node/uploads/{digest}", center.url);
    let client = http(&center, Some(&identity));
    let fetched = client.get(&path).send().await.unwrap().bytes().await.unwrap();
    assert!(fetched == archive, "{} of {} bytes", fetched.len(), archive.len());
    let part = client.get(&path).header("range", "bytes=8-15").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, &archive[8..16]));

    let before = operator.template("tiny").await.unwrap();
    node.tell(TaskOutcome::Running { percent: 40 }).await;
    let going_on = operator.template("tiny").await.unwrap();
    assert_eq!(going_on.outcome, TaskOutcome::Running { percent: 40 });
    assert!(going_on.version != before.version);
    // Who waits hears of the end at once.
    let watched = format!("{}/api/v1/templates/tiny?wait=true&after={}", center.url, going_on.version);
    let watch = async {
        let answer = http(&center, None).get(&watched).bearer_auth(&center.operator).send().await.unwrap();
        answer.json::<TemplateView>().await.unwrap()
    };
    let (done, ()) =
        soon(async { tokio::join!(watch, node.tell(TaskOutcome::Done { bytes: 0, template: Some(image()) })) }).await;
    assert_eq!((done.digest, done.size, done.environments), (Some(image().digest), image().size, 0));
    assert!(uploads(&center).is_empty());
    assert_eq!(client.get(&path).send().await.unwrap().status().as_u16(), 404);
    node.tasks.clear();
    let (status, message) = refused(upload(&operator, "tiny", b"other".to_vec()).await);
    assert!(status == 409 && message.contains("already"), "{message}");

    running(&center, &operator, &mut worker, "web1").await;
    assert_eq!(worker.orders.environments[0].template, image());
    let (status, message) = refused(operator.remove_template("tiny").await);
    assert!(status == 409 && message.contains("web1"), "{message}");
    assert_eq!(operator.templates().await.unwrap()[0].environments, 1);

    with_template(&center, &mut share, &mut worker, "same-image").await;
    operator.remove_template("tiny").await.unwrap();
    assert_eq!(refused(operator.template("tiny").await).0, 404);
    assert_eq!(refused(operator.remove_template("same-image").await).0, 409);
}

#[tokio::test]
async fn an_image_that_nobody_uses_is_removed_from_the_share() {
    let center = Running::start(AUTO);
    let (mut share, mut worker) = two_nodes(&center).await;
    with_template(&center, &mut share, &mut worker, "tiny").await;
    center.as_operator().remove_template("tiny").await.unwrap();
    let (node, task) = asked([&mut share, &mut worker]).await;
    assert_eq!(task.what, TaskKind::RemoveTemplate { digest: image().digest });
    node.tell(TaskOutcome::Done { bytes: 0, template: None }).await;
    node.until(|orders| orders.tasks.is_empty()).await;
}

#[tokio::test]
async fn a_failed_import_says_why_and_keeps_nothing() {
    let center = Running::start(AUTO);
    let (mut share, mut worker) = two_nodes(&center).await;
    let operator = center.as_operator();
    upload(&operator, "bad", b"no archive".to_vec()).await.unwrap();
    let (node, _) = asked([&mut share, &mut worker]).await;
    let why = "it is neither a tarball nor an OCI archive".to_owned();
    node.tell(TaskOutcome::Failed { error: why.clone() }).await;
    assert_eq!(operator.template("bad").await.unwrap().outcome, TaskOutcome::Failed { error: why });
    assert!(uploads(&center).is_empty());
    let events = operator.events(None, 0, false).await.unwrap();
    assert!(events.iter().any(|event| event.kind == "template" && event.text.contains("neither a tarball")), "{events:?}");
    operator.add_pool(&pool()).await.unwrap();
    let (status, message) = refused(operator.create_environment(&spec("web1", "bad"), false).await);
    assert!(status == 409 && message.contains("neither a tarball"), "{message}");
    let (status, message) = refused(operator.create_environment(&spec("web1", "tnyi"), false).await);
    assert!(status == 422 && message.contains("lodge template ls"), "{message}");
    operator.remove_template("bad").await.unwrap();
    assert!(operator.templates().await.unwrap().is_empty());
}

#[tokio::test]
async fn of_two_uploads_of_one_name_one_is_kept() {
    let center = Running::start(AUTO);
    let operator = center.as_operator();
    let (first, second) =
        tokio::join!(upload(&operator, "tiny", vec![1; 8 << 20]), upload(&operator, "tiny", vec![2; 8 << 20]));
    let loser = if first.is_ok() { second } else { first };
    let (status, message) = refused(loser);
    assert!(status == 409 && message.contains("tiny"), "{message}");
    assert_eq!((operator.templates().await.unwrap().len(), uploads(&center).len()), (1, 1));
    // No node has begun: it can be taken back.
    operator.remove_template("tiny").await.unwrap();
    assert!(uploads(&center).is_empty());
}

#[tokio::test]
async fn what_is_too_long_or_breaks_off_leaves_nothing_behind() {
    let center = Running::start_in(tempfile::tempdir().unwrap(), AUTO, &["--upload-max-mib", "1"]);
    let operator = center.as_operator();
    let long = vec![0; 64 << 20];
    let (status, message) = refused(upload(&operator, "tiny", long.clone()).await);
    assert!(status == 413 && message.contains("1048576 bytes"), "{message}");
    // Without a length beforehand it is noticed on the way.
    let path = |name: &str| format!("{}/api/v1/templates/{name}", center.url);
    let pieces =
        futures_util::stream::iter(long.chunks(1 << 16).map(<[u8]>::to_vec).map(Ok::<_, std::io::Error>).collect::<Vec<_>>());
    let body = reqwest::Body::wrap_stream(pieces);
    let answer = http(&center, None).put(path("tiny")).bearer_auth(&center.operator).body(body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 413);
    // It is told while the sender is still at it.
    let endless = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![0; 2 << 20])]);
    let endless = futures_util::StreamExt::chain(endless, futures_util::stream::pending());
    let request = http(&center, None).put(path("tiny")).bearer_auth(&center.operator);
    let answer = soon(request.body(reqwest::Body::wrap_stream(endless)).send()).await.unwrap();
    assert_eq!(answer.status().as_u16(), 413);
    let (status, message) = refused(upload(&operator, "tiny", vec![]).await);
    assert!(status == 422 && message.contains("empty"), "{message}");
    assert_eq!(refused(upload(&operator, "Not_a_name", b"x".to_vec()).await).0, 422);
    // Who is not allowed to hears so however long the body is.
    assert_eq!(refused(upload(&center.with_token("wrong"), "tiny", long).await).0, 401);

    let broken = futures_util::stream::iter([Ok(vec![1; 1000]), Err(std::io::Error::other("the file went away"))]);
    let body = reqwest::Body::wrap_stream(broken);
    assert!(http(&center, None).put(path("tiny")).bearer_auth(&center.operator).body(body).send().await.is_err());
    soon(async {
        while !uploads(&center).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(operator.templates().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_center_goes_on() {
    let center = Running::start_with_small_uploads(AUTO, 40);
    let operator = center.as_operator();
    let (status, message) = refused(upload(&operator, "tiny", vec![1; 64 << 20]).await);
    assert!(status == 507 && message.contains("no room"), "{message}");
    let pieces = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![1; 1 << 20])).collect::<Vec<_>>());
    let request = http(&center, None).put(format!("{}/api/v1/templates/tiny", center.url)).bearer_auth(&center.operator);
    let answer = request.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
    let (status, message) = (answer.status().as_u16(), answer.text().await.unwrap());
    assert!(status == 507 && message.contains("no room"), "{message}");
    assert!(operator.templates().await.unwrap().is_empty());
    upload(&operator, "tiny", vec![1; 30 << 20]).await.unwrap();
}

async fn user(center: &Running, name: &str, quota: Quota) -> lodge_client::Center {
    let added = center.as_operator().add_user(&UserOrder { name: name.into(), quota }).await.unwrap();
    assert_eq!(added.user.name, name);
    center.with_token(&added.token)
}

#[tokio::test]
async fn a_user_has_her_own_environments_within_her_quota() {
    let center = Running::start(AUTO);
    let (mut share, mut worker) = two_nodes(&center).await;
    let operator = center.as_operator();
    with_template(&center, &mut share, &mut worker, "tiny").await;
    let ann = user(&center, "ann", Quota { memory: Some(200 * MIB), ..Quota::default() }).await;
    let bob = user(&center, "bob", Quota::default()).await;
    running(&center, &ann, &mut worker, "web1").await;
    let (status, message) = refused(ann.create_environment(&spec("web2", "tiny"), false).await);
    assert!(status == 409 && message.contains("memory") && message.contains("200"), "{message}");
    let seen = ann.user("ann").await.unwrap();
    assert_eq!((seen.used.memory, seen.used.environments, seen.quota.memory), (Some(128 * MIB), Some(1), Some(200 * MIB)));
    operator.change_quota("ann", &QuotaChange::from([("memory", Some(300 * MIB))])).await.unwrap();
    ann.create_environment(&spec("web2", "tiny"), false).await.unwrap();

    assert!(bob.environments().await.unwrap().is_empty());
    assert_eq!(refused(bob.environment("web1").await).0, 404);
    assert_eq!(ann.environments().await.unwrap().len(), 2);
    assert_eq!(operator.environment("web1").await.unwrap().owner.as_deref(), Some("ann"));
    assert_eq!(refused(bob.user("ann").await).0, 404);
    assert_eq!(bob.users().await.unwrap().len(), 1);
    assert_eq!(bob.templates().await.unwrap().len(), 1);

    // What is an operator's is nobody else's.
    assert_eq!(refused(bob.nodes().await).0, 403);
    assert_eq!(refused(upload(&bob, "mine", b"x".to_vec()).await).0, 403);
    assert_eq!(refused(bob.remove_template("tiny").await).0, 403);
    assert_eq!(refused(bob.change_quota("bob", &QuotaChange::new()).await).0, 403);
    assert_eq!(refused(bob.add_user(&UserOrder { name: "eve".into(), quota: Quota::default() }).await).0, 403);

    let (status, message) = refused(operator.remove_user("ann").await);
    assert!(status == 409 && message.contains("web1") && message.contains("web2"), "{message}");
    let second = center.with_token(&bob.mint_user_token("bob").await.unwrap().token);
    assert_eq!(second.users().await.unwrap()[0].name, "bob");
    let events = operator.events(None, 0, false).await.unwrap();
    assert!(events.iter().any(|event| event.kind == "user" && event.text == "user bob got another token"), "{events:?}");
    operator.remove_user("bob").await.unwrap();
    assert_eq!(refused(second.users().await).0, 401);
    assert_eq!(refused(bob.users().await).0, 401);
}
