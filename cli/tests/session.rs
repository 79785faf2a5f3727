//! The built program in a session: a WebSocket server in the place of the center sends back what it gets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use lodge_model::environment::session::Frame;
use lodge_model::ids::Fingerprint;
use tokio_tungstenite::tungstenite::{Message, accept};

/// Serves one session: standard input comes back on standard output, its end as a word on standard error and status 7.
fn serve() -> (String, Fingerprint) {
    let (tls, fingerprint) = lodge_client::testing::tls_server().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let tls = rustls::ServerConnection::new(tls).unwrap();
        let mut socket = accept(rustls::StreamOwned::new(tls, listener.accept().unwrap().0)).unwrap();
        let send = |socket: &mut tokio_tungstenite::tungstenite::WebSocket<_>, frame: Frame| {
            socket.send(Message::binary(frame.encode())).unwrap();
        };
        while let Ok(message) = socket.read() {
            match Frame::decode(&message.into_data()) {
                Some(Frame::Stdin(bytes)) if bytes.is_empty() => {
                    send(&mut socket, Frame::Stderr(b"over".to_vec()));
                    send(&mut socket, Frame::Exit(7));
                    socket.close(None).unwrap();
                }
                Some(Frame::Stdin(bytes)) => send(&mut socket, Frame::Stdout(bytes)),
                _ => {}
            }
        }
    });
    (url, fingerprint)
}

fn exec(input: Stdio) -> Command {
    let (url, ca) = serve();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lodge"));
    command.env("LODGE_URL", url).env("LODGE_CA", ca.to_string()).env("LODGE_TOKEN", "t0k");
    command.args(["env", "exec", "web1", "--", "cat"]).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn twenty_megabytes_go_through_unchanged_and_the_status_is_the_programs() {
    let input: Vec<u8> = (0..20_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut child = exec(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(7), &b"over"[..]));
}

#[test]
fn a_reader_that_goes_away_ends_it_as_it_ends_any_filter() {
    let zeros = std::fs::File::open("/dev/zero").unwrap();
    let mut child = exec(zeros.into()).spawn().unwrap();
    let mut some = [0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
}
