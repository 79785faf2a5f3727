//! The holder as it is, with real terminals and real programs on them; only crun is played: a test sends the terminal as crun does.

use super::*;
use lodge_sys::process::{Home, prepare};
use lodge_sys::pty;
use std::os::fd::OwnedFd;
use std::process::Command;
use tempfile::TempDir;
use tokio::process::Child;

const ID: &str = "0d9a5d38-2d5e-4c5c-8a5a-0f4d4c1f6a01";
const LIMIT: Duration = Duration::from_secs(20);

struct Node {
    _dir: TempDir,
    places: Places,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = Places { socket: at("consoles.sock"), dir: at("consoles"), logs: at("logs") };
        Self { places, _dir: dir }
    }

    /// Run a test beside the holder.
    fn with(self, test: impl AsyncFnOnce(&Node)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::task::spawn_local(holder::serve(self.places.clone()));
            while !self.places.socket.exists() {
                tokio::task::yield_now().await;
            }
            tokio::time::timeout(LIMIT, test(&self)).await.unwrap();
        });
    }

    async fn ask(&self, word: &str) -> Result<()> {
        request(&self.places.socket, &format!("{word} {ID}")).await.map(drop)
    }

    /// What crun does: a program on a new terminal, whose other end goes to the socket.
    async fn start(&self, script: &str) -> Child {
        self.ask("open").await.unwrap();
        let (master, slave) = terminal();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        prepare(&mut command, &Home { session: true, terminal: true, ..Home::default() }).unwrap();
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let socket = UnixStream::connect(self.places.dir.join(format!("{ID}.sock"))).unwrap();
        pty::send(&socket, &master).unwrap();
        child
    }

    async fn attach(&self) -> (Output, Input) {
        attach(&self.places.socket, ID.parse().unwrap()).await.unwrap()
    }

    async fn log(&self) -> String {
        String::from_utf8(log(&self.places.socket, ID.parse().unwrap()).await.unwrap()).unwrap()
    }
}

/// Both ends of a new terminal, which no program of another test inherits.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).unwrap();
    nix::pty::grantpt(&master).unwrap();
    nix::pty::unlockpt(&master).unwrap();
    let name = nix::pty::ptsname_r(&master).unwrap();
    let slave = nix::fcntl::open(name.as_str(), flags, nix::sys::stat::Mode::empty()).unwrap();
    let master = std::os::fd::AsFd::as_fd(&master).try_clone_to_owned().unwrap();
    (master, slave)
}

/// Read until this has been seen; everything since the beginning.
async fn until(output: &mut Output, words: &str) -> String {
    let mut text = String::new();
    while !text.contains(words) {
        match output.next().await.unwrap() {
            Some(Frame::Stdout(bytes)) => text.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {text:?}"),
        }
    }
    text
}

async fn ended(mut child: Child) -> std::process::ExitStatus {
    child.wait().await.unwrap()
}

#[test]
fn a_console_outlives_whoever_is_attached_and_shows_what_was_missed() {
    Node::new().with(async |node| {
        let child = node.start("echo booted; while read word; do echo got $word; done").await;
        let (mut output, mut input) = node.attach().await;
        until(&mut output, "booted").await;
        input.send(&Frame::Stdin(b"one\n".to_vec())).await.unwrap();
        until(&mut output, "got one").await;
        // The attacher is restarted: the program notices nothing.
        drop((output, input));
        let (mut output, mut input) = node.attach().await;
        let (mut second, _second_input) = node.attach().await;
        let before = until(&mut output, "got one").await;
        assert!(before.contains("booted"), "{before}");
        input.send(&Frame::Stdin(b"two\n".to_vec())).await.unwrap();
        until(&mut output, "got two").await;
        until(&mut second, "got two").await;
        input.send(&Frame::Stdin(vec![4])).await.unwrap();
        assert!(ended(child).await.success());
        assert!(node.log().await.contains("got two"));
    });
}

#[test]
fn whoever_attaches_early_sees_the_next_start_and_its_terminal_has_a_size() {
    Node::new().with(async |node| {
        let (mut output, mut input) = node.attach().await;
        let child = node.start("until [ \"$(stty size)\" = '24 80' ]; do :; done; echo ready; read go; stty size").await;
        until(&mut output, "ready").await;
        input.send(&Frame::Resize { columns: 132, rows: 43 }).await.unwrap();
        input.send(&Frame::Stdin(b"go\n".to_vec())).await.unwrap();
        until(&mut output, "43 132").await;
        assert!(ended(child).await.success());
        // A restart: another terminal, the same attachment.
        let child = node.start("echo again").await;
        until(&mut output, "again").await;
        assert!(ended(child).await.success());
    });
}

#[test]
fn whoever_does_not_read_holds_nobody_up_and_is_told_what_is_missing() {
    Node::new().with(async |node| {
        let (mut slow, _slow_input) = node.attach().await;
        let child = node.start("head -c 1500000 /dev/zero | tr '\\0' x; echo; echo end; read go; echo last").await;
        let (mut output, mut input) = node.attach().await;
        until(&mut output, "end").await;
        let reader = tokio::task::spawn_local(async move { until(&mut slow, "last").await });
        // What waited for the slow one is read before more comes.
        input.send(&Frame::Stdin(b"\n".to_vec())).await.unwrap();
        until(&mut output, "last").await;
        assert!(ended(child).await.success());
        let told = reader.await.unwrap();
        assert!(told.contains("were left out") && told.len() < 1_500_000, "{} bytes", told.len());
    });
}

#[test]
fn a_closed_console_keeps_its_log_and_whoever_is_attached_and_nothing_else() {
    Node::new().with(async |node| {
        let sockets = || std::fs::read_dir(&node.places.dir).unwrap().count();
        assert!(ended(node.start("echo first").await).await.success());
        node.ask("close").await.unwrap();
        assert_eq!((sockets(), node.log().await.trim()), (0, "first"));
        let (mut output, _input) = node.attach().await;
        node.ask("close").await.unwrap();
        node.ask("close").await.unwrap();
        let child = node.start("echo second").await;
        until(&mut output, "second").await;
        assert!(ended(child).await.success());
        node.ask("close").await.unwrap();
        assert_eq!(sockets(), 0);
    });
}

#[test]
fn logs_of_environments_that_went_elsewhere_do_not_pile_up() {
    Node::new().with(async |node| {
        for number in 0..holder::PAST as u128 + 5 {
            std::fs::write(node.places.logs.join(format!("{}.log", uuid::Uuid::from_u128(number))), "before").unwrap();
        }
        std::fs::write(node.places.logs.join("a note"), "not a log").unwrap();
        assert!(ended(node.start("echo newest").await).await.success());
        node.ask("close").await.unwrap();
        assert_eq!(std::fs::read_dir(&node.places.logs).unwrap().count(), holder::PAST + 1);
        assert_eq!(node.log().await.trim(), "newest");
    });
}

#[test]
fn what_is_forgotten_is_hung_up_on_and_its_log_is_gone() {
    Node::new().with(async |node| {
        let child = node.start("trap 'exit 7' HUP; echo here; while :; do read x || exit 8; done").await;
        let (mut output, _input) = node.attach().await;
        until(&mut output, "here").await;
        node.ask("forget").await.unwrap();
        node.ask("forget").await.unwrap();
        let status = ended(child).await;
        assert!(matches!(status.code(), Some(7 | 8)), "{status}");
        assert_eq!(std::fs::read_dir(&node.places.logs).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(&node.places.dir).unwrap().count(), 0);
    });
}

#[test]
fn a_wrong_request_is_told_and_does_no_harm() {
    Node::new().with(async |node| {
        for line in ["", "open", "open ../../etc", "shout 0d9a5d38-2d5e-4c5c-8a5a-0f4d4c1f6a01"] {
            let error = format!("{:#}", request(&node.places.socket, line).await.err().unwrap());
            assert!(error.contains("the console holder says"), "{line:?}: {error}");
        }
        node.ask("open").await.unwrap();
        let mut stranger = UnixStream::connect(node.places.dir.join(format!("{ID}.sock"))).unwrap();
        stranger.write_all(b"no terminal").unwrap();
        let child = node.start("echo still taken").await;
        let (mut output, _input) = node.attach().await;
        until(&mut output, "still taken").await;
        assert!(ended(child).await.success());
    });
}
