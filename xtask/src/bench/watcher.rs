//! Who asks an ssh server all the time whether it answers, and so knows for how long it did not. It asks from outside, as everybody does.
//!
//! A question that was put while nobody was there may wait for its time limit though somebody has come since: so several ask, in turns. Who
//! has been answered rests, because every answer is work for the server. Whatever it says is an answer, also that it is asked too often
//! (sshd_config(5), `PerSourcePenalties`, `MaxStartups`).

use std::{
    io::Read as _,
    net::TcpStream,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// After a question that was not answered: a server that went away says nothing.
const AGAIN: Duration = Duration::from_millis(50);
/// So many ask.
const ASKERS: u32 = 5;
/// After one that was.
const REST: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_millis(500);
/// It is given up then.
const LIMIT: Duration = Duration::from_secs(600);

/// Asks until it is dropped.
pub struct Watcher {
    answers: Receiver<Instant>,
    _watched: Arc<()>,
}

impl Watcher {
    /// Ask at this port of 127.0.0.1.
    pub fn start(port: u16) -> Result<Self> {
        let (tell, answers) = mpsc::channel();
        let watched = Arc::new(());
        for asker in 0..ASKERS {
            let (tell, watched) = (tell.clone(), Arc::downgrade(&watched));
            let ask = move || {
                thread::sleep(REST / ASKERS * asker);
                while watched.strong_count() > 0 {
                    let is_answered = answers_at(port);
                    if is_answered && tell.send(Instant::now()).is_err() {
                        return;
                    }
                    thread::sleep(if is_answered { REST } else { AGAIN });
                }
            };
            thread::Builder::new().name("watcher".into()).spawn(ask).context("starting a thread")?;
        }
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
        sync::atomic::{AtomicBool, Ordering},
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
