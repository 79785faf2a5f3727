//! Who asks an ssh server all the time whether it answers, and so knows for how long it did not. It asks from outside, as everybody does.
//!
//! It asks at fixed times, whether it was answered or not: whoever asks more often while nobody is there slows down whoever is just
//! coming up, and an answer is work for the server. Whatever it says is an answer, also that it is asked too often (sshd_config(5),
//! `PerSourcePenalties`, `MaxStartups`).

use std::{
    convert::Infallible,
    io::Read as _,
    net::TcpStream,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A question is put every so often: a silence is known to about this.
const EVERY: Duration = Duration::from_millis(200);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// It is given up then.
const LIMIT: Duration = Duration::from_secs(600);

/// Asks until it is dropped.
pub struct Watcher {
    answers: Receiver<Instant>,
    _watched: Sender<Infallible>,
}

impl Watcher {
    /// Ask at this port of 127.0.0.1.
    pub fn start(port: u16) -> Result<Self> {
        let (tell, answers) = mpsc::channel();
        let (watched, is_over) = mpsc::channel();
        let watch = move || {
            let mut next = Instant::now();
            while is_over.recv_timeout(next.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
                let tell = tell.clone();
                thread::spawn(move || {
                    if answers_at(port) {
                        let _ = tell.send(Instant::now());
                    }
                });
                next += EVERY;
            }
        };
        thread::Builder::new().name("watcher".into()).spawn(watch).context("starting a thread")?;
        Ok(Self { answers, _watched: watched })
    }

    /// Wait for the next answer.
    pub fn answers(&mut self) -> Result<Instant> {
        let now = Instant::now();
        loop {
            match self.answers.recv_timeout(LIMIT.saturating_sub(now.elapsed())) {
                Ok(at) if at >= now => return Ok(at),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("no ssh server answers after {} s", LIMIT.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("the watcher has ended"),
            }
        }
    }

    /// Seconds of the longest silence while something is done, until the first answer after it.
    pub fn gap(&mut self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let mut times = vec![self.answers()?];
        work()?;
        times.extend(self.answers.try_iter());
        times.push(self.answers()?);
        times.sort();
        let silences = times.iter().zip(times.iter().skip(1)).map(|(one, next)| (*next - *one).as_secs_f64());
        Ok(silences.fold(0.0, f64::max))
    }
}

fn answers_at(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).is_ok() && stream.read_exact(&mut [0]).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::TcpListener,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use super::*;

    #[test]
    fn a_silence_is_as_long_as_it_was() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_up = Arc::new(AtomicBool::new(true));
        let up = Arc::clone(&is_up);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if up.load(Ordering::SeqCst) {
                    let _ = stream.unwrap().write_all(b"SSH-2.0-x\r\n");
                }
            }
        });
        let mut watcher = Watcher::start(port).unwrap();
        let gap = watcher.gap(|| {
            is_up.store(false, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(600));
            is_up.store(true, Ordering::SeqCst);
            Ok(())
        });
        let gap = gap.unwrap();
        assert!((0.5..5.0).contains(&gap), "{gap}");
    }
}
