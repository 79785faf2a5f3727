//! The center as its users meet it: the real program, over HTTPS.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lodge_client::{Auth, Center, Error};
use lodge_model::api::{Decision, InstallOrder, MachineEvent, NodeState, ShareHealth, ShareMount};
use lodge_model::ids::Fingerprint;
use lodge_model::layout::Slot;
use lodge_model::node::Role;
use tokio::net::{TcpListener, TcpStream};

use support::{Enrolled, Machine, Running, disk, heartbeat, holding, plain_get, register};

const AUTO: &str = r#"{"admit":"auto"}"#;
const ASK: &str = r#"{"admit":"approve"}"#;

fn refused(result: Result<impl Sized, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// A raw request, for what the typed client cannot get wrong.
async fn raw(center: &Running, method: reqwest::Method, path: &str, token: &str, body: &str) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(&std::fs::read(center.data().join("ca.pem")).unwrap()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let request = http.request(method, format!("{}{path}", center.url)).bearer_auth(token).body(body.to_owned());
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn install(machine: &Machine, serial: &str, address: &str) -> Enrolled {
    let ticket = machine.ticket(machine.hello(vec![disk("vda", serial)]).await);
    let step = MachineEvent::Step { step: "write-root".into(), percent: 40, done: 4, total: 10, left: Some(3) };
    machine.center.machine_events(machine.id, &[step]).await.unwrap();
    let node = machine.enrol(&ticket, address).await.unwrap();
    let done = MachineEvent::StepDone { step: "write-root".into(), seconds: 4.2 };
    let installed = MachineEvent::Installed { version: "0.1.0".into(), slot: Slot::A, disk_serial: serial.into() };
    machine.center.machine_events(machine.id, &[done, installed]).await.unwrap();
    node
}

#[tokio::test]
async fn who_does_not_belong_here_is_refused_in_words() {
    let center = Running::start(AUTO);
    let machine = center.machine_with("no-such-token", 2);
    let (status, message) = refused(machine.center.decision(machine.id).await);
    assert!(status == 401 && message.contains("token"), "{status} {message}");

    let join = center.as_operator().mint_token().await.unwrap();
    assert_eq!(refused(center.with_token(&join.token).nodes().await).0, 403);
    assert!(join.words.contains(&format!("lodge.ca={}", center.ca)), "{}", join.words);
    center.machine_with(&join.token, 2).hello(vec![]).await;
    let (status, message) = refused(center.machine_with(&join.token, 3).center.decision(machine_id(3)).await);
    assert!(status == 403 && message.contains("belongs to machine"), "{message}");
    assert_eq!(refused(center.with_token(&center.operator).register(&any_register()).await).0, 401);

    let other_ca = Fingerprint::from_digest([9; 32]);
    let wrong = Center::new(&center.url, &other_ca, Auth::Token(join.token)).unwrap();
    assert!(matches!(wrong.nodes().await, Err(Error::WrongCertificate { .. })));
}

#[tokio::test]
async fn wrong_input_names_the_key() {
    let center = Running::start(AUTO);
    let token = center.as_operator().mint_token().await.unwrap().token;
    let path = format!("/api/v1/machines/{}/facts", machine_id(2));
    let (status, body) = raw(&center, reqwest::Method::POST, &path, &token, r#"{"facts":null,"colour":"red"}"#).await;
    assert!(status == 422 && body.contains("facts"), "{body}");
    let (status, body) = raw(&center, reqwest::Method::POST, &path, &token, r#"{"colour":"red"}"#).await;
    assert!(status == 422 && body.contains("colour") && body.starts_with(r#"{"error":"#), "{status} {body}");
    let (status, body) = raw(&center, reqwest::Method::GET, "/api/v1/events?wiat=true", &center.operator, "").await;
    assert!(status == 422 && body.contains("wiat"), "{status} {body}");
    let (status, _) = raw(&center, reqwest::Method::GET, "/api/v1/nodes/nobody", &center.operator, "").await;
    assert_eq!(status, 404);
    let (status, _) = raw(&center, reqwest::Method::POST, "/api/v1/machines/xyz/approve", &center.operator, "{}").await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn an_ambiguous_disk_waits_and_goes_on_by_itself_once_mended() {
    let center = Running::start(AUTO);
    let machine = center.new_machine(2).await;
    let two = vec![disk("vda", "S1"), disk("vdb", "S2")];
    let Decision::Wait { reason } = machine.hello(two).await else { panic!("it was not held back") };
    assert!(reason.contains("S1") && reason.contains("S2"), "{reason}");
    let seen = center.as_operator().nodes().await.unwrap();
    assert_eq!((seen[0].state, seen[0].reason.as_str()), (NodeState::Waiting, reason.as_str()));

    // Mended at the machine: its installer says hello again.
    let ticket = machine.ticket(machine.hello(vec![disk("vdb", "S2")]).await);
    assert_eq!((ticket.name.as_str(), ticket.disk_serial.as_str(), ticket.wipe), ("node1", "S2", false));
    assert_eq!(ticket.bundle, format!("{}/boot/lodge-os.tar.gz", center.boot.clone().unwrap()));
}

#[tokio::test]
async fn an_operators_word_reaches_a_waiting_machine_at_once() {
    let center = Running::start(ASK);
    let machine = center.new_machine(2).await;
    let Decision::Wait { reason } = machine.hello(vec![holding("vda", "S1", "ext4")]).await else { panic!("not held back") };
    assert!(reason.contains("lodge node approve"), "{reason}");

    let operator = center.as_operator();
    let wrong = InstallOrder { disk: Some("S7".into()), ..InstallOrder::default() };
    let (status, message) = refused(operator.approve(machine.id, &wrong).await);
    assert!(status == 422 && message.contains("S7") && message.contains("S1"), "{message}");

    // The disk holds something: approval alone is not enough, and the machine hears so.
    operator.approve(machine.id, &InstallOrder::default()).await.unwrap();
    let Decision::Wait { reason } = machine.hello(vec![holding("vda", "S1", "ext4")]).await else { panic!("not held back") };
    assert!(reason.contains("ext4"), "{reason}");

    let order = InstallOrder { wipe: true, name: Some("db".into()), ..InstallOrder::default() };
    let (held, word) = tokio::join!(machine.center.decision(machine.id), operator.approve(machine.id, &order));
    word.unwrap();
    let ticket = machine.ticket(held.unwrap());
    assert_eq!((ticket.name.as_str(), ticket.wipe), ("db", true));
}

#[tokio::test]
async fn a_machine_becomes_a_ready_node_and_a_restart_loses_nothing() {
    let mut center = Running::start(AUTO);
    let operator = center.as_operator();
    let own = center.own_machine().await;
    let own_agent = center.as_node(&own);
    let roles = vec![Role::Center, Role::Share];
    let own_orders = own_agent.register(&register(1, 100, "CENTER0", "10.77.0.10", roles)).await.unwrap();
    assert_eq!((own_orders.share.clone(), own_orders.exports.len()), (None, 0));

    let machine = center.new_machine(2).await;
    let ticket = machine.ticket(machine.hello(vec![disk("vda", "S1")]).await);
    // Enrolment is answered once the share has let the address in.
    let serve = async {
        let news = own_agent.heartbeat(&heartbeat(100, ShareHealth::Serving, &own_orders)).await.unwrap();
        assert_eq!(news.exports, ["10.77.0.51"]);
        let done = own_agent.heartbeat(&heartbeat(100, ShareHealth::Serving, &news)).await.unwrap();
        assert_eq!(done.generation, news.generation);
    };
    let (node, ()) = tokio::join!(machine.enrol(&ticket, "10.77.0.51"), serve);
    let node = node.unwrap();
    assert_eq!(node.reply.share, Some(ShareMount::Nfs { server: "10.77.0.10".into() }));
    let installed = MachineEvent::Installed { version: "0.1.0".into(), slot: Slot::A, disk_serial: "S1".into() };
    machine.center.machine_events(machine.id, &[installed]).await.unwrap();
    assert_eq!(operator.node("node1").await.unwrap().node.state, NodeState::Installed);
    assert_eq!(machine.hello(vec![holding("vda", "S1", "gpt")]).await, Decision::BootDisk);

    let agent = center.as_node(&node);
    let orders = agent.register(&register(2, 200, "S1", "10.77.0.51", vec![Role::Worker])).await.unwrap();
    assert_eq!(operator.node("node1").await.unwrap().node.state, NodeState::Registered);
    agent.heartbeat(&heartbeat(200, ShareHealth::Mounted { probe_ms: 4 }, &orders)).await.unwrap();
    let detail = operator.node("node1").await.unwrap();
    assert_eq!((detail.node.state, detail.node.reason.as_str()), (NodeState::Ready, ""));
    assert_eq!((detail.disk_serial.as_deref(), detail.slot, detail.phases.len()), (Some("S1"), Some(Slot::A), 1));
    let events = operator.events(Some("node1"), 0, false).await.unwrap();
    for kind in ["hello", "admitted", "ticket", "enrolled", "installed", "ready"] {
        assert!(events.iter().any(|event| event.kind == kind), "no {kind} in {events:?}");
    }
    let last = events.last().unwrap().id;
    agent.node_console("hello from the console\n").await.unwrap();

    center.restart();
    let announced = std::fs::read_to_string(center.dir.path().join("announced")).unwrap();
    assert_eq!(announced.lines().count(), 1, "the operator's token was told again");
    let (operator, agent) = (center.as_operator(), center.as_node(&node));
    let again = agent.heartbeat(&heartbeat(200, ShareHealth::Mounted { probe_ms: 4 }, &orders)).await.unwrap();
    assert!(!again.register_again && again == orders, "{again:?} {orders:?}");
    let after = operator.node("node1").await.unwrap();
    assert_eq!((after.node.state, after.node.node), (NodeState::Ready, detail.node.node));
    assert_eq!(operator.console_log("node1").await.unwrap(), "hello from the console\n");
    assert_eq!(operator.tickets().await.unwrap()[0].state, "done");
    assert!(operator.events(Some("node1"), 0, false).await.unwrap().iter().any(|event| event.id == last));
    assert_eq!(operator.cluster().await.unwrap().bundle.as_deref(), Some("0.1.0"));

    agent.going_down("power button").await.unwrap();
    let off = operator.node("node1").await.unwrap().node;
    assert!(off.state == NodeState::Off && off.reason.contains("power button"), "{off:?}");
}

/// An agent breaks off the heartbeat that the center holds whenever it has news: that must not cost it a handshake each time.
#[tokio::test]
async fn a_heartbeat_that_is_broken_off_leaves_the_connection() {
    let center = Running::start(AUTO);
    let node = install(&center.new_machine(2).await, "S1", "10.77.0.51").await;
    let (url, connections) = relay(&center.url).await;
    let auth = Auth::Certificate { cert_pem: node.reply.certificate.clone(), key_pem: node.key.0.clone() };
    let agent = Center::new(&url, &center.ca, auth).unwrap();
    let orders = agent.register(&register(2, 200, "S1", "10.77.0.51", vec![Role::Worker])).await.unwrap();
    let beat = heartbeat(200, ShareHealth::Mounted { probe_ms: 4 }, &orders);
    for _ in 0..3 {
        let held = tokio::time::timeout(lodge_model::timing::HEARTBEAT / 10, agent.heartbeat(&beat)).await;
        assert!(held.is_err(), "it was answered at once: {held:?}");
    }
    assert_eq!(agent.heartbeat(&beat).await.unwrap(), orders);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

/// An address by which a center is reached, and how many connections came to it.
async fn relay(center: &str) -> (String, Arc<AtomicU32>) {
    let (listener, center) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), center.replace("https://", ""));
    let url = format!("https://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut far = TcpStream::connect(&center).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    (url, connections)
}

#[tokio::test]
async fn a_reinstall_needs_an_order_and_keeps_the_node() {
    let mut center = Running::start(AUTO);
    let operator = center.as_operator();
    let machine = center.new_machine(2).await;
    let node = install(&machine, "S1", "10.77.0.51").await;
    let agent = center.as_node(&node);
    let orders = agent.register(&register(2, 200, "S1", "10.77.0.51", vec![Role::Worker])).await.unwrap();
    assert_eq!(machine.hello(vec![holding("vda", "S1", "gpt")]).await, Decision::BootDisk);

    // A held heartbeat brings the order at once.
    let started = std::time::Instant::now();
    let beat = heartbeat(200, ShareHealth::Unknown, &orders);
    let order = async { operator.reinstall("node1", &InstallOrder::default()).await.unwrap() };
    let (news, ()) = tokio::join!(agent.heartbeat(&beat), order);
    let answer = news.unwrap().reinstall.expect("the order was not told");
    assert!(started.elapsed() < lodge_model::timing::HEARTBEAT, "it took {:?}", started.elapsed());
    assert_eq!((answer.url.as_str(), &answer.ca), (center.url.as_str(), &center.ca));

    let installer = center.machine_with(&answer.token, 2);
    let ticket = installer.ticket(installer.hello(vec![holding("vda", "S1", "gpt")]).await);
    assert_eq!((ticket.node, ticket.wipe, ticket.disk_serial.as_str()), (node.reply.node, true, "S1"));
    let second = installer.enrol(&ticket, "10.77.0.51").await.unwrap();
    assert_eq!(second.reply.node, node.reply.node);
    assert_eq!(operator.node("node1").await.unwrap().node.state, NodeState::Installing);
    let (status, message) = refused(agent.heartbeat(&beat).await);
    assert!(status == 403 && message.contains("newer"), "{message}");

    // Power is cut, at the center too: the machine starts over and may go on, on the same disk only.
    center.crash();
    let installer = center.machine_with(&answer.token, 2);
    let again = installer.ticket(installer.hello(vec![holding("vda", "S1", "gpt")]).await);
    assert!(again.id != ticket.id && again.wipe && again.disk_serial == "S1");
    assert_eq!(refused(installer.enrol(&ticket, "10.77.0.51").await.map(drop)).0, 409);
    assert!(matches!(installer.hello(vec![disk("vdb", "S9")]).await, Decision::Wait { .. }));
}

#[tokio::test]
async fn a_forgotten_node_is_nobody() {
    let center = Running::start(AUTO);
    let operator = center.as_operator();
    let machine = center.new_machine(2).await;
    let node = install(&machine, "S1", "10.77.0.51").await;
    let agent = center.as_node(&node);
    agent.register(&register(2, 200, "S1", "10.77.0.51", vec![Role::Worker])).await.unwrap();
    operator.forget("node1").await.unwrap();
    assert_eq!(refused(agent.register(&register(2, 200, "S1", "10.77.0.51", vec![])).await).0, 403);
    assert!(operator.nodes().await.unwrap().is_empty());
    assert_eq!(refused(machine.center.decision(machine.id).await).0, 401);

    let own = center.own_machine().await;
    center.as_node(&own).register(&register(1, 100, "C", "10.77.0.10", vec![Role::Center])).await.unwrap();
    assert_eq!(refused(operator.forget("center1").await).0, 409);
    assert_eq!(refused(operator.reinstall("center1", &InstallOrder::default()).await).0, 409);
}

#[tokio::test]
async fn failures_are_seen_and_a_copied_disk_is_not_a_node() {
    let center = Running::start(AUTO);
    let operator = center.as_operator();
    let machine = center.new_machine(2).await;
    machine.ticket(machine.hello(vec![disk("vda", "S1")]).await);
    let follow = operator.events(None, operator.events(None, 0, false).await.unwrap().last().unwrap().id, true);
    let failed = MachineEvent::Failed { step: "write-root".into(), error: "writing /dev/vda: no space left".into() };
    let failing = [failed];
    let tell = machine.center.machine_events(machine.id, &failing);
    let (events, told) = tokio::join!(follow, tell);
    told.unwrap();
    assert!(events.unwrap().iter().any(|event| event.kind == "failed" && event.text.contains("no space left")));
    let seen = operator.node("node1").await.unwrap().node;
    assert!(seen.state == NodeState::Installing && seen.reason.contains("no space left"), "{seen:?}");

    let node = install(&machine, "S1", "10.77.0.51").await;
    let elsewhere = register(3, 300, "S1", "10.77.0.52", vec![Role::Worker]);
    let (status, message) = refused(center.as_node(&node).register(&elsewhere).await);
    assert!(status == 403 && message.contains("copied disk"), "{message}");
}

#[tokio::test]
async fn boot_files_are_served_in_the_clear() {
    let center = Running::start(AUTO);
    let boot = center.boot.clone().unwrap();
    let (head, body) = plain_get(&format!("{boot}/boot/lodge.efi"), "");
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-length: "), "{head}");
    assert_eq!(body, support::UKI_BYTES);
    let (head, body) = plain_get(&format!("{boot}/boot/lodge.efi"), "Range: bytes=4-9\r\n");
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert_eq!(body, &support::UKI_BYTES[4..10]);
    let (head, bundle) = plain_get(&format!("{boot}/boot/lodge-os.tar.gz"), "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(bundle, std::fs::read(center.data().join("bundles/lodge-os-0.1.0.tar.gz")).unwrap());
    // A token is not for whoever happens to be on the network, unless the site says so.
    let (head, _) = plain_get(&format!("{boot}/boot/lodge.toml"), "");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let (head, _) = plain_get(&format!("{boot}/boot/../center.db"), "");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

#[tokio::test]
async fn the_api_describes_every_route() {
    let center = Running::start(AUTO);
    let (status, body) = raw(&center, reqwest::Method::GET, "/healthz", "", "").await;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    let (status, body) = raw(&center, reqwest::Method::GET, "/openapi.json", "", "").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let expected = [
        ("/machines/{machine}/facts", "post"),
        ("/machines/{machine}/decision", "get"),
        ("/machines/{machine}/events", "post"),
        ("/machines/{machine}/console", "post"),
        ("/machines/{machine}/enrol", "post"),
        ("/machines/{machine}/approve", "post"),
        ("/node/register", "post"),
        ("/node/heartbeat", "post"),
        ("/node/console", "post"),
        ("/node/off", "post"),
        ("/nodes", "get"),
        ("/nodes/{name}", "get"),
        ("/nodes/{name}", "delete"),
        ("/nodes/{name}/console", "get"),
        ("/nodes/{name}/reinstall", "post"),
        ("/events", "get"),
        ("/tickets", "get"),
        ("/tokens", "post"),
        ("/cluster", "get"),
        ("/templates", "get"),
        ("/templates/{name}", "get"),
        ("/templates/{name}", "put"),
        ("/templates/{name}", "delete"),
        ("/node/uploads/{digest}", "get"),
        ("/users", "get"),
        ("/users", "post"),
        ("/users/{name}", "get"),
        ("/users/{name}", "patch"),
        ("/users/{name}", "delete"),
        ("/users/{name}/tokens", "post"),
        ("/users/{name}/tokens", "delete"),
        ("/environments/{name}/exec", "get"),
        ("/environments/{name}/console", "get"),
        ("/environments/{name}/logs", "get"),
        ("/node/sessions/{id}", "get"),
    ];
    for (path, method) in expected {
        assert!(!paths[&format!("/api/v1{path}")][method].is_null(), "{method} {path} is not described");
    }
    // Each described route is really there, and asks who is calling.
    for (path, methods) in paths.iter().filter(|(path, _)| path.starts_with("/api")) {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{machine}", &machine_id(2).to_string()).replace("{name}", "node1");
            let method = method.to_uppercase().parse().unwrap();
            let (status, body) = raw(&center, method, &path, "wrong", "{}").await;
            assert_eq!(status, 401, "{path}: {body}");
        }
    }
}

fn machine_id(number: u128) -> lodge_model::ids::MachineId {
    lodge_model::ids::MachineId(uuid::Uuid::from_u128(number))
}

fn any_register() -> lodge_model::api::Register {
    register(2, 200, "S1", "10.77.0.51", vec![])
}
