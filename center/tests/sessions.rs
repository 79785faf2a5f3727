//! Sessions as clients and agents have them: two real WebSockets over TLS, through the real program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lodge_client::{Error, Session as Open};
use lodge_model::environment::session::{FRAME_MAX, Frame, SessionKind};
use lodge_model::environment::view::{Quota, UserOrder};
use lodge_model::ids::SessionId;
use sha2::{Digest, Sha256};
use support::Running;
use support::cluster::{Node, running, soon, two_nodes, with_template};

const AUTO: &str = r#"{"admit":"auto"}"#;
const MANY: usize = 20 << 20;

fn refused(result: Result<Open, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, message }) => (status, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// A center whose worker runs `web1`.
async fn with_web1() -> (Running, Node) {
    let center = Running::start(AUTO);
    let (mut share, mut worker) = two_nodes(&center).await;
    with_template(&center, &mut share, &mut worker, "tiny").await;
    running(&center, &center.as_operator(), &mut worker, "web1").await;
    (center, worker)
}

/// Bytes that repeat nowhere near.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_megabytes_go_both_ways_unchanged() {
    let (center, mut worker) = with_web1().await;
    let operator = center.as_operator();
    let command = words(&["cat", "a b", "é&=+"]);
    let (opened, joined) = tokio::join!(operator.exec("web1", &command, false), worker.joined());
    let (mut input, mut output) = opened.unwrap().split();
    let (session, mut stdout, mut stdin) = joined;
    assert_eq!(session.what, SessionKind::Exec { command, tty: false });

    let echo = async {
        while let Some(frame) = stdin.next().await.unwrap() {
            match frame {
                Frame::Stdin(bytes) if bytes.is_empty() => break,
                Frame::Stdin(bytes) => stdout.send(&Frame::Stdout(bytes)).await.unwrap(),
                other => panic!("{other:?}"),
            }
        }
        stdout.send(&Frame::Exit(7)).await.unwrap();
        stdout.close().await.unwrap();
    };
    let sent = noise(MANY);
    let send = async {
        for piece in sent.chunks(FRAME_MAX) {
            input.send(&Frame::Stdin(piece.to_vec())).await.unwrap();
        }
        input.send(&Frame::Stdin(vec![])).await.unwrap();
    };
    let receive = async {
        let (mut back, mut status) = (Vec::new(), None);
        while let Some(frame) = output.next().await.unwrap() {
            match frame {
                Frame::Stdout(bytes) => back.extend(bytes),
                Frame::Exit(code) => status = Some(code),
                other => panic!("{other:?}"),
            }
        }
        (back, status)
    };
    let begun = std::time::Instant::now();
    let ((), (), (back, status)) = tokio::time::timeout(Duration::from_secs(120), async { tokio::join!(echo, send, receive) })
        .await
        .expect("20 MB took longer than two minutes");
    println!("20 MB there and back: {:?}", begun.elapsed());
    assert_eq!((back.len(), status), (MANY, Some(7)));
    assert_eq!(Sha256::digest(&back), Sha256::digest(&sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_the_other_back() {
    let (center, mut worker) = with_web1().await;
    let operator = center.as_operator();
    let (opened, (_, _stdout, mut stdin)) = {
        let command = words(&["cat"]);
        let (opened, joined) = tokio::join!(operator.exec("web1", &command, false), worker.joined());
        (opened.unwrap(), joined)
    };
    let (mut input, _output) = opened.split();
    let before = center.memory();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let piece = noise(FRAME_MAX);
    let frames = 200 * (1 << 20) / FRAME_MAX as u64;
    let sending = tokio::spawn(async move {
        for _ in 0..frames {
            input.send(&Frame::Stdin(piece.clone())).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
        input
    });
    // Nobody reads: it comes to a stand. That nothing happens can only be watched for a while.
    let mut stands_at = u64::MAX;
    while sent.load(Ordering::SeqCst) != stands_at {
        stands_at = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(stands_at < frames, "200 MB went into nowhere");
    let grown = center.memory().saturating_sub(before);
    println!("stands after {} KiB; the center grew by {} KiB", stands_at * 64, grown / 1024);
    assert!(grown < 16 << 20, "the center keeps {grown} bytes");

    // It goes on when somebody reads, and nothing is missing.
    let mut received = 0;
    while received < stands_at + 10 {
        match soon(stdin.next()).await.unwrap() {
            Some(Frame::Stdin(bytes)) => {
                assert_eq!(bytes.len(), FRAME_MAX);
                received += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    sending.abort();
}

#[tokio::test]
async fn what_is_said_last_is_heard() {
    let (center, mut worker) = with_web1().await;
    let operator = center.as_operator();

    // The node breaks off without a last word.
    let (opened, joined) = tokio::join!(operator.console("web1"), worker.joined());
    let (mut input, mut output) = opened.unwrap().split();
    let (session, mut stdout, stdin) = joined;
    assert_eq!(session.what, SessionKind::Console);
    stdout.send(&Frame::Stdout(b"login: ".to_vec())).await.unwrap();
    drop((stdout, stdin));
    assert_eq!(soon(output.next()).await.unwrap(), Some(Frame::Stdout(b"login: ".to_vec())));
    let Some(Frame::Error(why)) = soon(output.next()).await.unwrap() else { panic!("no error") };
    assert!(why.contains("broke off"), "{why}");
    assert_eq!(soon(output.next()).await.unwrap(), None);
    let _ = input.close().await;

    // The client goes: the node sees the end, and may say what it still has to say.
    let (opened, joined) = tokio::join!(operator.console("web1"), worker.joined());
    let (mut input, output) = opened.unwrap().split();
    let (_, _stdout, mut stdin) = joined;
    input.send(&Frame::Resize { columns: 80, rows: 24 }).await.unwrap();
    assert_eq!(soon(stdin.next()).await.unwrap(), Some(Frame::Resize { columns: 80, rows: 24 }));
    input.close().await.unwrap();
    drop((input, output));
    assert_eq!(soon(stdin.next()).await.unwrap(), None);

    // A client that leaves before the agent has come is not waited for.
    let opened = operator.console("web1").await.unwrap();
    let session = worker.called().await;
    drop(opened);
    let gone = async {
        loop {
            worker.beat().await;
            if worker.orders.sessions.is_empty() {
                break;
            }
        }
    };
    soon(gone).await;
    assert_eq!(refused(worker.center.join_session(session.id).await).0, 404);
}

#[tokio::test]
async fn an_agent_that_does_not_come_is_not_waited_for_for_ever() {
    let (center, mut worker) = with_web1().await;
    let opened = center.as_operator().exec("web1", &words(&["id"]), false).await.unwrap();
    let (mut input, mut output) = opened.split();
    input.send(&Frame::Stdin(b"early".to_vec())).await.unwrap();
    let session = worker.called().await;
    let begun = std::time::Instant::now();
    let waited = tokio::time::timeout(Duration::from_secs(40), output.next()).await.unwrap();
    let Frame::Error(why) = waited.unwrap().unwrap() else { panic!("no error") };
    assert!(why.contains("has not joined") && begun.elapsed() > Duration::from_secs(20), "{why} after {:?}", begun.elapsed());
    assert_eq!(soon(output.next()).await.unwrap(), None);
    assert_eq!(refused(worker.center.join_session(session.id).await).0, 404);
}

#[tokio::test]
async fn a_log_is_asked_of_the_node() {
    let (center, mut worker) = with_web1().await;
    let operator = center.as_operator();
    let answer = async {
        let (session, mut stdout, _stdin) = worker.joined().await;
        assert_eq!(session.what, SessionKind::Log);
        stdout.send(&Frame::Stdout(b"Debian GNU/Linux 13 \xff\n".to_vec())).await.unwrap();
        stdout.send(&Frame::Stdout(b"login: ".to_vec())).await.unwrap();
        stdout.send(&Frame::Exit(0)).await.unwrap();
        stdout.close().await.unwrap();
    };
    let (log, ()) = soon(async { tokio::join!(operator.logs("web1"), answer) }).await;
    assert_eq!(log.unwrap(), b"Debian GNU/Linux 13 \xff\nlogin: ");

    let answer = async {
        let (_, mut stdout, _stdin) = worker.joined().await;
        stdout.send(&Frame::Error("nothing has been printed yet".into())).await.unwrap();
        stdout.close().await.unwrap();
    };
    let (log, ()) = soon(async { tokio::join!(operator.logs("web1"), answer) }).await;
    assert!(matches!(log, Err(Error::Refused { status: 409, message }) if message.contains("nothing has been printed")));
}

#[tokio::test]
async fn who_may_not_have_a_session_is_told_so() {
    let (center, worker) = with_web1().await;
    let operator = center.as_operator();
    let order = |name: &str| UserOrder { name: name.into(), quota: Quota::default() };
    let ann = center.with_token(&operator.add_user(&order("ann")).await.unwrap().token);
    let (status, message) = refused(ann.exec("web1", &words(&["id"]), false).await);
    assert!(status == 404 && message.contains("no environment"), "another's is there for nobody: {message}");
    assert_eq!(refused(operator.exec("web7", &words(&["id"]), false).await).0, 404);
    let (status, message) = refused(operator.exec("web1", &[], false).await);
    assert!(status == 422 && message.contains("command"), "{message}");
    assert_eq!(refused(center.with_token("wrong").console("web1").await).0, 401);

    let nobody = SessionId(uuid::Uuid::from_u128(1));
    assert_eq!(refused(worker.center.join_session(nobody).await).0, 404);
    assert_eq!(refused(operator.join_session(nobody).await).0, 401);
}
