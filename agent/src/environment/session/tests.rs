//! A whole session over a real WebSocket with a real program at its end. Played are only the center (it accepts what the agent opens)
//! and crun (the program runs on this machine; a terminal is sent as crun sends it).

use super::*;
use futures_util::{SinkExt as _, StreamExt as _};
use lodge_client::Auth;
use lodge_model::environment::session::FRAME_MAX;
use lodge_model::ids::EnvironmentId;
use lodge_sys::pty;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const LIMIT: Duration = Duration::from_secs(60);
const SESSION: &str = "0d9a5d38-2d5e-4c5c-8a5a-0f4d4c1f6a02";

/// Runs the program here, as a child of a shell as it is crun's.
#[derive(Default)]
struct Local {
    slaves: Mutex<Vec<OwnedFd>>,
}

impl Engine for Local {
    fn command(&self, _: EnvironmentId, command: &[String], terminal: Option<&Path>, pid_file: &Path) -> Command {
        const ON_PIPES: &str =
            r#"file=$1; shift; exec 3<&0 0</dev/null; "$@" <&3 3<&- & echo $! >"$file"; exec 3<&- 2>/dev/null; wait $!"#;
        const ON_TERMINAL: &str = r#"tty=$1; shift; exec "$@" <>"$tty" >&0 2>&0"#;
        let mut call = match terminal {
            None => {
                let mut call = Command::new("sh");
                call.args(["-c", ON_PIPES, "sh"]).arg(pid_file);
                call
            }
            Some(socket) => {
                let (master, slave) = crate::consoles::tests::terminal();
                let mut call = Command::new("setsid");
                call.args(["sh", "-c", ON_TERMINAL, "sh"]).arg(nix::unistd::ttyname(&slave).unwrap());
                pty::send(std::os::unix::net::UnixStream::connect(socket).unwrap(), &master).unwrap();
                self.slaves.lock().unwrap().push(slave);
                call
            }
        };
        call.args(command);
        call
    }
}

type Socket = WebSocketStream<tokio_rustls::server::TlsStream<TcpStream>>;

/// The center's end of one session, and the agent that serves it.
struct Held {
    socket: Socket,
    dir: TempDir,
    agent: tokio::task::JoinHandle<Result<()>>,
    _orders: watch::Sender<Option<Orders>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

async fn session(what: SessionKind) -> Held {
    let (tls, pin) = lodge_client::testing::tls_server().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let center = Center::new(&url, &pin, Auth::Token("t".into())).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let node =
        Node { engine: Box::new(Local::default()), consoles: dir.path().join("none.sock"), dir: dir.path().join("sessions") };
    let session = Session { id: SESSION.parse().unwrap(), environment: SESSION.parse().unwrap(), what };
    let orders: Orders = serde_json::from_value(serde_json::json!({
        "generation": 1, "name": "n", "share": null, "exports": [], "reinstall": null, "register_again": false,
        "sessions": [session]
    }))
    .unwrap();
    let (sender, receiver) = watch::channel(Some(orders));
    let agent = tokio::spawn(serve(center, receiver, node));
    let (stream, _) = listener.accept().await.unwrap();
    let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.unwrap();
    let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    Held { socket, dir, agent, _orders: sender }
}

async fn exec(script: &str, tty: bool) -> Held {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    session(SessionKind::Exec { command, tty }).await
}

/// What came, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Came {
    out: Vec<u8>,
    err: Vec<u8>,
    last: Option<Frame>,
}

/// Send this, then the end of input; take everything meanwhile.
async fn talk(mut held: Held, input: &[u8]) -> Came {
    let mut came = Came::default();
    let (mut sink, mut stream) = (&mut held.socket).split();
    let sending = async {
        for piece in input.chunks(FRAME_MAX) {
            sink.send(Message::binary(Frame::Stdin(piece.to_vec()).encode())).await.unwrap();
        }
        sink.send(Message::binary(Frame::Stdin(Vec::new()).encode())).await.unwrap();
        std::future::pending::<()>().await;
    };
    let taking = async {
        while came.last.is_none() {
            match stream.next().await.unwrap().unwrap() {
                Message::Binary(message) => match Frame::decode(&message).unwrap() {
                    Frame::Stdout(bytes) => came.out.extend(bytes),
                    Frame::Stderr(bytes) => came.err.extend(bytes),
                    last => came.last = Some(last),
                },
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let both = async {
        tokio::select! { () = sending => {}, () = taking => {} }
    };
    tokio::time::timeout(LIMIT, both).await.unwrap();
    sink.close().await.unwrap();
    came
}

#[tokio::test]
async fn twenty_megabytes_go_both_ways_unchanged() {
    let input: Vec<u8> = (0..20_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let came = talk(exec("cat; exit 3", false).await, &input).await;
    assert!(came.out == input, "{} of {} bytes came", came.out.len(), input.len());
    assert_eq!((came.err.len(), came.last), (0, Some(Frame::Exit(3))));
}

#[tokio::test]
async fn what_was_written_last_comes_before_the_status_and_signals_are_told_as_a_shell_does() {
    let came = talk(exec("head -c 60000 /dev/zero; printf oh >&2; kill -9 $$", false).await, b"").await;
    assert_eq!((came.out.len(), came.err.as_slice(), came.last), (60_000, &b"oh"[..], Some(Frame::Exit(137))));
    // Whoever stays behind with the streams keeps nobody waiting.
    let came = talk(exec("sleep 40 & printf done; exit 0", false).await, b"").await;
    assert_eq!((came.out.as_slice(), came.last), (&b"done"[..], Some(Frame::Exit(0))));
}

#[tokio::test]
async fn a_program_that_does_not_read_is_no_reason_to_stop() {
    let came = talk(exec("exec <&-; echo closed", false).await, &vec![b'x'; 4 << 20]).await;
    assert_eq!((came.out.as_slice(), came.last), (&b"closed\n"[..], Some(Frame::Exit(0))));
}

#[tokio::test]
async fn a_program_has_a_terminal_with_a_size_and_ctrl_d_at_the_end() {
    let mut held = exec("tty >&2; while read word; do stty size; echo got $word; done; exit 5", true).await;
    let size = Frame::Resize { columns: 132, rows: 43 };
    held.socket.send(Message::binary(size.encode())).await.unwrap();
    let came = talk(held, b"one\n").await;
    let text = String::from_utf8(came.out).unwrap();
    assert!(text.contains("/dev/pts/") && text.contains("43 132") && text.contains("got one"), "{text}");
    assert_eq!(came.last, Some(Frame::Exit(5)));
}

#[tokio::test]
async fn a_client_that_goes_hangs_up_on_its_program() {
    let mut held = exec("echo $PPID; trap '' HUP; exec sleep 300", false).await;
    let Message::Binary(message) = held.socket.next().await.unwrap().unwrap() else { panic!("no frame") };
    let Some(Frame::Stdout(bytes)) = Frame::decode(&message) else { panic!("no output") };
    let engine = String::from_utf8(bytes).unwrap().trim().to_owned();
    held.socket.close(None).await.unwrap();
    // It does not heed SIGHUP: it is killed after a while, and the shell around it ends.
    let gone = async {
        while Path::new(&format!("/proc/{engine}")).exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    let files = held.dir.path().join("sessions");
    let empty = async {
        while std::fs::read_dir(&files).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, empty).await.unwrap();
}

#[tokio::test]
async fn a_session_that_cannot_be_is_told_why() {
    let came = talk(session(SessionKind::Console).await, b"").await;
    assert!(matches!(&came.last, Some(Frame::Error(why)) if why.contains("none.sock")), "{came:?}");
}

#[test]
fn each_session_is_joined_once() {
    let session = |id: u128| Session {
        id: SessionId(uuid::Uuid::from_u128(id)),
        environment: SESSION.parse().unwrap(),
        what: SessionKind::Console,
    };
    let mut joined = BTreeSet::new();
    assert_eq!(news(&[session(1), session(2)], &mut joined).len(), 2);
    assert_eq!(news(&[session(2), session(3)], &mut joined), [session(3)]);
    assert_eq!(joined.len(), 2);
}
