//! The client against a real TLS server with a real CA.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use base64::Engine;
use lodge_model::environment::session::{FRAME_MAX, Frame};
use lodge_model::ids::{Fingerprint, MachineId, NodeId, TicketId};
use lodge_model::ticket::{SignedTicket, Ticket};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::{Auth, Center, Error, Upload, new_key_and_csr, verify_ticket};

struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: Vec<u8>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pkcs8 = key.serialize_der();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap(), key: pkcs8 }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from_digest(Sha256::digest(self.der()).into())
    }

    fn leaf(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn sign(&self, payload: &str) -> SignedTicket {
        let random = ring::rand::SystemRandom::new();
        let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, &self.key, &random).unwrap();
        let signature = key.sign(&random, payload.as_bytes()).unwrap();
        let signature = base64::engine::general_purpose::STANDARD.encode(signature);
        SignedTicket { payload: payload.to_owned(), signature }
    }
}

/// Answers one request a connection with `status` and `body`; gives back what was asked.
fn serve(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    status: &'static str,
    body: &'static str,
) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = std::sync::mpsc::channel();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(tls, stream.unwrap()));
            let Some(request) = read_request(&mut stream) else { continue };
            let _ = asked.send(request);
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(head.as_bytes()).unwrap();
            stream.get_mut().write_all(body.as_bytes()).unwrap();
            stream.get_mut().flush().unwrap();
        }
    });
    (address, requests)
}

fn read_request(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).ok()?)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn center(address: SocketAddr, ca: &Fingerprint) -> Center {
    Center::new(&format!("https://{address}"), ca, Auth::Token("t0k".into())).unwrap()
}

#[test]
fn the_pinned_center_is_called_and_its_ca_is_known_afterwards() {
    let ca = Ca::new("center");
    let (leaf, key) = ca.leaf("127.0.0.1");
    let (address, requests) = serve(vec![leaf, ca.der()], key, "200 OK", "[]");
    let center = center(address, &ca.fingerprint());
    assert_eq!(center.ca_der(), None);
    assert_eq!(run(center.nodes()).unwrap(), []);
    assert_eq!(center.ca_der(), Some(ca.der().as_ref()));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /api/v1/nodes HTTP/1.1"), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer t0k"), "{request}");
}

#[test]
fn another_ca_is_refused_with_both_fingerprints() {
    let (ca, other) = (Ca::new("center"), Ca::new("center"));
    let (leaf, key) = other.leaf("127.0.0.1");
    let (address, _requests) = serve(vec![leaf, other.der()], key, "200 OK", "[]");
    let error = run(center(address, &ca.fingerprint()).nodes()).unwrap_err();
    let Error::WrongCertificate { expected, presented, .. } = &error else { panic!("{error}") };
    assert_eq!((expected, presented.as_ref()), (&ca.fingerprint(), Some(&other.fingerprint())));
    assert!(error.to_string().contains(&other.fingerprint().to_string()), "{error}");
}

#[test]
fn the_pinned_ca_beside_a_leaf_of_somebody_else_is_refused() {
    let (ca, other) = (Ca::new("center"), Ca::new("center"));
    let (leaf, key) = other.leaf("127.0.0.1");
    let (address, _requests) = serve(vec![leaf, ca.der()], key, "200 OK", "[]");
    let error = run(center(address, &ca.fingerprint()).nodes()).unwrap_err();
    assert!(matches!(error, Error::BadCertificate { .. }), "{error}");
}

#[test]
fn a_certificate_for_another_address_is_refused() {
    let ca = Ca::new("center");
    let (leaf, key) = ca.leaf("192.0.2.1");
    let (address, _requests) = serve(vec![leaf, ca.der()], key, "200 OK", "[]");
    let error = run(center(address, &ca.fingerprint()).nodes()).unwrap_err();
    assert!(matches!(error, Error::BadCertificate { .. }), "{error}");
}

#[test]
fn the_centers_own_words_are_kept_in_a_refusal() {
    let ca = Ca::new("center");
    let (leaf, key) = ca.leaf("127.0.0.1");
    let (address, requests) = serve(vec![leaf, ca.der()], key, "409 Conflict", r#"{"error":"node1 is being installed"}"#);
    let error = run(center(address, &ca.fingerprint()).forget("../tickets")).unwrap_err();
    assert!(matches!(&error, Error::Refused { status: 409, message } if message == "node1 is being installed"), "{error}");
    let request = requests.recv().unwrap();
    assert!(request.starts_with("DELETE /api/v1/nodes/..%2Ftickets "), "{request}");
}

#[test]
fn an_answer_of_another_kind_is_not_understood() {
    let ca = Ca::new("center");
    let (leaf, key) = ca.leaf("127.0.0.1");
    let (address, _requests) = serve(vec![leaf, ca.der()], key, "200 OK", r#"{"version":7}"#);
    let error = run(center(address, &ca.fingerprint()).cluster()).unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
}

#[test]
fn nobody_there_is_told_with_the_cause() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run(center(free, &Fingerprint::from_digest([1; 32])).nodes()).unwrap_err().to_string();
    assert!(error.contains("Connection refused") && error.contains(&free.to_string()), "{error}");
}

#[test]
fn addresses_that_are_not_a_centers_are_refused() {
    let ca = Fingerprint::from_digest([1; 32]);
    for url in ["http://x", "ftp://x", "https://", "10.0.0.1:8443", "https://u:p@x", "https://x/?a=b"] {
        assert!(Center::new(url, &ca, Auth::Token("t".into())).is_err(), "{url}");
    }
    assert!(Center::new("https://x", &ca, Auth::Token("a\nb".into())).is_err());
}

/// Sends every frame back until it is told `Stdin([])`, which it answers with `Exit(7)`.
fn serve_session(ca: &Ca) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    use tokio_tungstenite::tungstenite::{Message, accept_hdr};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = std::sync::mpsc::channel();
    let (leaf, key) = ca.leaf("127.0.0.1");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf, ca.der()], key)
        .unwrap();
    std::thread::spawn(move || {
        let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let stream = rustls::StreamOwned::new(tls, listener.accept().unwrap().0);
        #[expect(clippy::result_large_err, reason = "the library's own type")]
        let remember = |request: &Request, response: Response| {
            asked.send(request.uri().to_string()).unwrap();
            Ok(response)
        };
        let mut socket = accept_hdr(stream, remember).unwrap();
        while let Ok(message) = socket.read() {
            match Frame::decode(&message.clone().into_data()) {
                Some(Frame::Stdin(bytes)) if bytes.is_empty() => {
                    socket.send(Message::binary(Frame::Exit(7).encode())).unwrap();
                    socket.close(None).unwrap();
                }
                Some(frame) => socket.send(Message::binary(frame.encode())).unwrap(),
                None => {}
            }
        }
    });
    (address, requests)
}

#[test]
fn a_session_carries_frames_both_ways_and_ends_in_order() {
    let ca = Ca::new("center");
    let (address, requests) = serve_session(&ca);
    run(async {
        let command = ["sh".to_owned(), "-c".to_owned(), "a & b".to_owned()];
        let (mut sender, mut receiver) =
            center(address, &ca.fingerprint()).exec("web1", &command, false).await.unwrap().split();
        let long = Frame::Stdin(vec![7; FRAME_MAX]);
        for frame in [Frame::Stdin(b"x".to_vec()), long, Frame::Resize { columns: 80, rows: 24 }] {
            sender.send(&frame).await.unwrap();
            assert_eq!(receiver.next().await.unwrap(), Some(frame));
        }
        sender.send(&Frame::Stdin(Vec::new())).await.unwrap();
        assert_eq!(receiver.next().await.unwrap(), Some(Frame::Exit(7)));
        assert_eq!(receiver.next().await.unwrap(), None);
    });
    let asked = requests.recv().unwrap();
    assert_eq!(asked, "/api/v1/environments/web1/exec?command=sh&command=-c&command=a+%26+b&tty=false");
}

#[test]
fn a_session_that_is_refused_is_refused_in_the_centers_words() {
    let ca = Ca::new("center");
    let (leaf, key) = ca.leaf("127.0.0.1");
    let (address, _requests) = serve(vec![leaf, ca.der()], key, "409 Conflict", r#"{"error":"web1 does not run"}"#);
    let error = run(center(address, &ca.fingerprint()).console("web1")).err().unwrap();
    assert!(matches!(&error, Error::Refused { status: 409, message } if message == "web1 does not run"), "{error}");
}

#[test]
fn an_upload_is_sent_whole_and_its_progress_is_told() {
    let ca = Ca::new("center");
    let (leaf, key) = ca.leaf("127.0.0.1");
    let (address, requests) = serve(vec![leaf, ca.der()], key, "202 Accepted", "{}");
    let told = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let progress = Arc::clone(&told);
    let body = "x".repeat(1 << 20);
    let upload = Upload {
        from: std::io::Cursor::new(body.clone().into_bytes()),
        size: body.len() as u64,
        progress: move |more| _ = progress.fetch_add(more, std::sync::atomic::Ordering::Relaxed),
    };
    run(center(address, &ca.fingerprint()).import_template("tiny", upload)).unwrap();
    let request = requests.recv().unwrap();
    assert!(request.starts_with("PUT /api/v1/templates/tiny ") && request.ends_with(&body));
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1 << 20);
}

#[test]
fn a_ticket_counts_only_with_the_cas_signature() {
    let (ca, other) = (Ca::new("center"), Ca::new("center"));
    let id = |text: &str| text.parse::<TicketId>().unwrap();
    let ticket = Ticket {
        id: id("00000000-0000-4000-8000-000000000001"),
        machine: MachineId(id("00000000-0000-4000-8000-000000000002").0),
        node: NodeId(id("00000000-0000-4000-8000-000000000003").0),
        name: "node1".into(),
        roles: Vec::new(),
        disk_serial: "D1".into(),
        wipe: false,
        bundle: "http://192.0.2.1/boot/lodge-os.tar.gz".into(),
        expires: 1,
    };
    let signed = ca.sign(&serde_json::to_string(&ticket).unwrap());
    assert_eq!(verify_ticket(&signed, &ca.der()).unwrap(), ticket);
    assert!(verify_ticket(&signed, &other.der()).is_err());
    let forged = SignedTicket { payload: signed.payload.replace("D1", "D2"), ..signed.clone() };
    assert!(verify_ticket(&forged, &ca.der()).unwrap_err().to_string().contains("not signed"));
    let garbled = SignedTicket { signature: "???".into(), ..signed };
    assert!(verify_ticket(&garbled, &ca.der()).is_err());
}

#[test]
fn a_request_for_a_certificate_is_signed_by_the_new_key() {
    let (key, csr) = new_key_and_csr().unwrap();
    let pair = KeyPair::from_pem(&key.0).unwrap();
    let request = rcgen::CertificateSigningRequestParams::from_pem(&csr.0).unwrap();
    use rcgen::PublicKeyData;
    assert_eq!(request.public_key.der_bytes(), pair.der_bytes());
    assert_eq!(format!("{key:?}"), "KeyPem(…)");
}
