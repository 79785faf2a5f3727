//! `lodge env exec` and `lodge env console`: this terminal, or these pipes, at a program far away. Nothing is lost on the way: standard
//! input is read no faster than the other side takes it, and the other side writes no faster than standard output does.
//!
//! Standard input and output block, so each has a thread of its own. The one that reads is not waited for at the end: it may never
//! come back.

use std::io::{IsTerminal as _, Read as _, Write as _, stderr, stdin, stdout};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use crossterm::terminal;
use lodge_client::{Center, Session, SessionReceiver, SessionSender};
use lodge_model::environment::session::{DETACH_KEY, FRAME_MAX, Frame};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::arguments::environment::Exec;
use crate::failure::{NotRun, OK};

/// As a shell tells of a program whose reader has gone away (128 + SIGPIPE).
const READER_GONE: u8 = 141;
/// Pieces on the way between a thread and the connection.
const PIECES: usize = 4;

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The program ended.
    Exit(u8),
    /// The detach key was pressed.
    Detached,
    /// Nobody reads standard output any more.
    ReaderGone,
}

/// Run a program; its exit status.
pub async fn exec(center: &Center, asked: &Exec) -> Result<u8> {
    let name = &asked.name;
    let tty = asked.tty || (!asked.no_tty && stdin().is_terminal() && stdout().is_terminal());
    let not_run = || NotRun(format!("running {} in {name}", asked.command.join(" ")));
    let session = center.exec(name, &asked.command, tty).await.with_context(not_run)?;
    match talk(session, tty, false).await.with_context(not_run)? {
        End::Exit(status) => Ok(status),
        End::ReaderGone => Ok(READER_GONE),
        End::Detached => Ok(OK),
    }
}

/// Attach to a console.
pub async fn console(center: &Center, name: &str) -> Result<u8> {
    let session = center.console(name).await.with_context(|| format!("attaching to the console of {name}"))?;
    if stdin().is_terminal() {
        eprintln!("attached to the console of {name}; Ctrl-] leaves it");
    }
    match talk(session, true, true).await.with_context(|| format!("on the console of {name}"))? {
        End::Exit(status) => Ok(status),
        End::ReaderGone => Ok(READER_GONE),
        End::Detached => {
            eprintln!("\nleft the console of {name}");
            Ok(OK)
        }
    }
}

async fn talk(session: Session, tty: bool, detach: bool) -> Result<End> {
    let (sender, receiver) = session.split();
    let _raw = if tty && stdin().is_terminal() { Some(Raw::enter()?) } else { None };
    let (output, written) = writer();
    let end = tokio::select! {
        end = forward(sender, reader(), tty, detach) => end,
        end = deliver(receiver, output) => end,
    }?;
    // The end of its channel ends the thread, once everything is written.
    match written.join() {
        Ok(Ok(())) => Ok(end),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(End::ReaderGone),
        Ok(Err(error)) => Err(error).context("writing the output"),
        Err(_) => Err(anyhow!("writing the output: the thread failed")),
    }
}

/// Input and sizes of the terminal, until the detach key. A connection that is gone is told by `deliver`, after what came before.
async fn forward(mut sender: SessionSender, mut input: mpsc::Receiver<Vec<u8>>, tty: bool, detach: bool) -> Result<End> {
    let mut resized = signal(SignalKind::window_change()).context("following the terminal's size")?;
    let mut open = true;
    if tty {
        send(&mut sender, size()).await;
    }
    loop {
        tokio::select! {
            piece = input.recv(), if open => {
                let piece = piece.unwrap_or_default();
                open = !piece.is_empty();
                let (before, detached) = match detach.then(|| until_detach(&piece)).flatten() {
                    Some(before) => (before.to_vec(), true),
                    None => (piece, false),
                };
                if !detached || !before.is_empty() {
                    send(&mut sender, Some(Frame::Stdin(before))).await;
                }
                if detached {
                    // Whoever leaves does not wait for a good-bye.
                    let _ = sender.close().await;
                    return Ok(End::Detached);
                }
            }
            _ = resized.recv(), if tty => send(&mut sender, size()).await,
            else => std::future::pending().await,
        }
    }
}

async fn send(sender: &mut SessionSender, frame: Option<Frame>) {
    if let Some(frame) = frame
        && sender.send(&frame).await.is_err()
    {
        std::future::pending::<()>().await;
    }
}

async fn deliver(mut receiver: SessionReceiver, output: mpsc::Sender<Piece>) -> Result<End> {
    loop {
        let piece = match receiver.next().await? {
            Some(Frame::Stdout(bytes)) => Piece::Out(bytes),
            Some(Frame::Stderr(bytes)) => Piece::Err(bytes),
            Some(Frame::Exit(status)) => return Ok(End::Exit(u8::try_from(status & 0xff).unwrap_or(u8::MAX))),
            Some(Frame::Error(why)) => return Err(anyhow!(why)),
            Some(Frame::Stdin(_) | Frame::Resize { .. }) => continue,
            None => return Err(anyhow!("the session ended before the program did")),
        };
        if output.send(piece).await.is_err() {
            return Ok(End::ReaderGone);
        }
    }
}

/// What comes before the detach key, if that is in it.
fn until_detach(piece: &[u8]) -> Option<&[u8]> {
    piece.split(|byte| *byte == DETACH_KEY).next().filter(|before| before.len() < piece.len())
}

fn size() -> Option<Frame> {
    let (columns, rows) = terminal::size().ok()?;
    Some(Frame::Resize { columns, rows })
}

/// Standard input, piece by piece; an empty piece is its end.
fn reader() -> mpsc::Receiver<Vec<u8>> {
    let (sender, pieces) = mpsc::channel(PIECES);
    std::thread::spawn(move || {
        let mut stdin = stdin().lock();
        let mut piece = vec![0; FRAME_MAX];
        loop {
            let read = match stdin.read(&mut piece) {
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // A terminal that has gone away.
                Err(_) => 0,
            };
            if sender.blocking_send(piece.get(..read).unwrap_or_default().to_vec()).is_err() || read == 0 {
                return;
            }
        }
    });
    pieces
}

enum Piece {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

fn writer() -> (mpsc::Sender<Piece>, JoinHandle<std::io::Result<()>>) {
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let thread = std::thread::spawn(move || {
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Out(bytes) => {
                    let mut out = stdout().lock();
                    out.write_all(&bytes)?;
                    out.flush()?;
                }
                Piece::Err(bytes) => stderr().lock().write_all(&bytes)?,
            }
        }
        Ok(())
    });
    (sender, thread)
}

/// The terminal passes every key on, until this is dropped.
struct Raw;

impl Raw {
    fn enter() -> Result<Self> {
        terminal::enable_raw_mode().context("setting the terminal up")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = terminal::disable_raw_mode() {
            eprintln!("lodge: the terminal is left in raw mode ({error}); `reset` mends it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_before_the_detach_key_still_counts() {
        assert_eq!(until_detach(b"ls\n"), None);
        assert_eq!(until_detach(b""), None);
        assert_eq!(until_detach(b"\x1d"), Some(&b""[..]));
        assert_eq!(until_detach(b"ls\n\x1dmore"), Some(&b"ls\n"[..]));
    }
}
