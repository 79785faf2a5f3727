//! A node that leaves, with a played center behind real TLS and a played init.

use std::path::Path;
use std::sync::{Arc, Mutex};

use lodge_client::{Auth, KeyPem, sign_certificate};
use lodge_model::api::Orders;
use lodge_model::drain::{Certificate, CertificateReply, Counts, Leave, SignedCertificate};
use lodge_model::ids::{Fingerprint, NodeId};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::leave::Leaver;

const SOON: Duration = Duration::from_secs(20);
const QUESTION: TaskId = TaskId(Uuid::from_u128(7));

/// What was asked of the center: the path and the body.
type Asked = mpsc::UnboundedReceiver<(String, String)>;

/// A center that gives these answers, one connection after the other, to whatever is asked.
async fn center(answers: Vec<serde_json::Value>) -> (Center, Asked) {
    let (tls, fingerprint) = lodge_client::testing::tls_server().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (sender, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            sender.send((path, String::from_utf8(body).unwrap())).unwrap();
            let text = answer.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            stream.write_all(format!("{head}content-length: {}\r\n\r\n{text}", text.len()).as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (Center::new(&url, &fingerprint, Auth::Token("t".into())).unwrap(), asked)
}

/// An init that takes everything; what it was asked.
fn init(socket: &Path) -> mpsc::UnboundedReceiver<String> {
    let listener = UnixListener::bind(socket).unwrap();
    let (sender, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut line = String::new();
            BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
            sender.send(line.trim().to_owned()).unwrap();
            stream.write_all(b"ok\n").await.unwrap();
        }
    });
    asked
}

fn orders(leave: Leave) -> Orders {
    let orders = json!({
        "generation": 1, "name": "n1", "share": null, "exports": [], "reinstall": null, "register_again": false
    });
    Orders { leave: Some(leave), ..serde_json::from_value(orders).unwrap() }
}

#[tokio::test]
async fn a_node_waits_for_its_certificate_and_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("init.sock");
    let mut asked_of_init = init(&socket);
    let reply = |issued, why: &str| serde_json::to_value(CertificateReply { issued, why: why.into() }).unwrap();
    let told = json!({ "id": QUESTION, "seconds": 500, "total": 600 });
    let (center, mut asked) = center(vec![told, reply(false, "1 mounts are left"), reply(true, "")]).await;
    let (issued_sender, issued) = watch::channel(None);
    let (center_sender, center_receiver) = watch::channel(Some(center.clone()));
    let node = LeavingNode { init: socket.clone(), center: center_receiver, issued };
    let end = since_boot() + Duration::from_secs(300);
    let drained = tokio::spawn(async move { node.drain(Down::Poweroff, Cause::Button, end, SOON).await });
    let (path, body) = asked.recv().await.unwrap();
    assert_eq!(path, "/api/v1/node/leaving");
    let leaving: Leaving = serde_json::from_str(&body).unwrap();
    assert_eq!((leaving.boot, leaving.cause, leaving.power), (boot_id().unwrap(), drain::Cause::Button, Power::Poweroff));
    // The settings give more time than init does by itself.
    assert_eq!(asked_of_init.recv().await.unwrap(), "hold 610");
    assert!(!drained.is_finished());

    let (key, _) = lodge_client::new_key_and_csr().unwrap();
    let (ordered, order) = watch::channel(None);
    let left = Arc::new(Mutex::new(vec![1, 0]));
    let counts = move || Ok(Counts { mounts: left.lock().unwrap().remove(0), ..Counts::default() });
    let (node, boot) = (NodeId(Uuid::from_u128(3)), boot_id().unwrap());
    let leaver = Leaver {
        node,
        boot,
        key: KeyPem(key.0.clone()),
        center,
        init: socket,
        count: Arc::new(counts),
        orders: order,
        issued: issued_sender,
    };
    tokio::spawn(leaver.run());
    // Orders for another boot are not carried out.
    let other = lodge_model::ids::BootId(Uuid::from_u128(1));
    ordered.send_replace(Some(orders(Leave::GoDown { boot: other, power: Power::Poweroff })));
    ordered.send_replace(Some(orders(Leave::Certify { id: QUESTION, boot })));
    for mounts in [1, 0] {
        let (path, body) = asked.recv().await.unwrap();
        assert_eq!(path, "/api/v1/node/certificate");
        let signed: SignedCertificate = serde_json::from_str(&body).unwrap();
        let said: Certificate = serde_json::from_str(&signed.payload).unwrap();
        assert_eq!((said.id, said.node, said.boot, said.counts.mounts), (QUESTION, node, boot, mounts));
        // Another signature of the same bytes differs, and is of the same key.
        assert!(sign_certificate(&said, &KeyPem(key.0.clone())).unwrap().payload == signed.payload);
    }
    let until = timeout(SOON, drained).await.unwrap().unwrap();
    assert!(until > end, "the settings' deadline holds");
    ordered.send_replace(Some(orders(Leave::GoDown { boot, power: Power::Reboot })));
    assert_eq!(timeout(SOON, asked_of_init.recv()).await.unwrap().unwrap(), "shutdown reboot");
    drop(center_sender);
}

#[tokio::test]
async fn without_a_center_it_goes_on_when_its_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let away = Center::new(&url, &Fingerprint::from_digest([1; 32]), Auth::Token("t".into())).unwrap();
    let (_sender, center) = watch::channel(Some(away));
    let (_issued, issued) = watch::channel(None);
    let node = LeavingNode { init: "/nowhere".into(), center, issued };
    let began = since_boot();
    let end = began + Duration::from_secs(60);
    let until = timeout(SOON, node.drain(Down::Reboot, Cause::Power, end, Duration::from_millis(600))).await.unwrap();
    assert!(until == end && since_boot() >= began + Duration::from_millis(600));
}
