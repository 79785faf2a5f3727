//! A thread for what may hang: a hard mount waits in the kernel until its server is back, and so does everything below it. The
//! agent asks for one thing at a time and goes on; a hung job costs one sleeping thread. A killed agent takes the thread with it
//! (NFS waits are killable), the mount stays.
//!
//! The share is proved by a process of its own, which is killed when it hangs, and begun again. One request may hang although the share
//! answers: the kernel's client waits 15 s before it repeats one that the server says it is still at, as a server does that was frozen
//! in between (`NFS4ERR_DELAY` in `nfs41_sequence_process`, fs/nfs/nfs4proc.c), and a client that has to bind its connection to the
//! session anew waits for that one before it lets anything else through. When its process is killed, all go on.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use lodge_model::{paths, timing};
use lodge_sys::mount::Unmounted;
use lodge_sys::program::Program;
use lodge_sys::{mount, nfs};
use tokio::sync::mpsc as tokio_mpsc;

use super::plan::{Job, PATIENCE};
use crate::moments::since_boot;
use crate::uplink;

const STACK: usize = 128 << 10;
/// Exit status of one that failed.
const FAILED: i32 = 3;
/// Exit status of one that says that the mount no longer means anything to its server.
const STALE: i32 = 4;

/// How a job ended.
#[derive(Debug)]
pub struct Outcome {
    /// Which one.
    pub job: Job,
    /// When, since the kernel started.
    pub at: Duration,
    /// Milliseconds it took, or why not.
    pub result: Result<u32, JobError>,
}

/// Why a job failed.
#[derive(Debug)]
pub struct JobError {
    /// For people.
    pub text: String,
    /// The mount no longer means anything to its server.
    pub stale: bool,
}

/// The thread and what it is doing.
pub struct Helper {
    jobs: mpsc::Sender<Job>,
    outcomes: tokio_mpsc::UnboundedReceiver<Outcome>,
    busy: Option<(Job, Duration)>,
}

impl Helper {
    /// Start the thread. `prove` proves the share in a directory: [`proof`].
    pub fn start(prove: impl Fn(&Path) -> Result<(), JobError> + Send + 'static) -> Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let (done, outcomes) = tokio_mpsc::unbounded_channel();
        let work = move || {
            while let Ok(job) = todo.recv() {
                let result = run(&job, &prove);
                if done.send(Outcome { job, at: since_boot(), result }).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("share".into())
            .stack_size(STACK)
            .spawn(work)
            .context("starting the share's thread")?;
        Ok(Self { jobs, outcomes, busy: None })
    }

    /// Begin a job. The plan never begins a second one.
    pub fn begin(&mut self, job: Job) -> Result<()> {
        self.jobs.send(job.clone()).map_err(|_| anyhow!("the share's thread has ended"))?;
        self.busy = Some((job, since_boot()));
        Ok(())
    }

    /// What it does, and since when.
    pub fn busy(&self) -> Option<(Job, Duration)> {
        self.busy.clone()
    }

    /// Wait for the next end of a job.
    pub async fn ended(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.recv().await;
        self.busy = None;
        outcome
    }
}

/// Have the share proved in a directory, in bounded time.
pub fn proof(dir: &Path) -> Result<(), JobError> {
    let program = Program::Agent.call(["prove"]).arguments([dir]);
    let no_answer = || format!("proving {}: no answer; is the share's server up and reachable?", dir.display());
    let said = program.accept(&[0, FAILED, STALE]).deadline(PATIENCE).run().with_context(no_answer)?;
    let text = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    if said.code == 0 { Ok(()) } else { Err(JobError { text, stale: said.code == STALE }) }
}

/// What the program does that is started for it; its exit status.
pub fn prove(dir: &Path) -> ExitCode {
    let Err(error) = nfs::prove(dir) else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    u8::try_from(if error.is_stale() { STALE } else { FAILED }).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn run(job: &Job, prove: &impl Fn(&Path) -> Result<(), JobError>) -> Result<u32, JobError> {
    let start = since_boot();
    match job {
        Job::Mount(server) => mount_share(*server)?,
        Job::Unmount => unmount_share()?,
        Job::Probe(dir) => prove(dir)?,
    }
    Ok(u32::try_from((since_boot() - start).as_millis()).unwrap_or(u32::MAX))
}

fn mount_share(server: IpAddr) -> Result<(), JobError> {
    let client = uplink::read().and_then(|uplink| uplink::address(&uplink))?;
    Ok(nfs::mount(server, client, Path::new(paths::SHARE))?)
}

fn unmount_share() -> Result<(), JobError> {
    match mount::unmount_within(Path::new(paths::SHARE), timing::SHARE_UNMOUNT)? {
        Unmounted::Clean => tracing::info!("unmounted {}", paths::SHARE),
        Unmounted::Detached(why) => tracing::warn!("detached {}: {why}", paths::SHARE),
    }
    Ok(())
}

impl From<nfs::ShareError> for JobError {
    fn from(error: nfs::ShareError) -> Self {
        Self { text: error.to_string(), stale: error.is_stale() }
    }
}

impl From<anyhow::Error> for JobError {
    fn from(error: anyhow::Error) -> Self {
        Self { text: format!("{error:#}"), stale: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proof_and_its_failure_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut helper = Helper::start(|dir| Ok(nfs::prove(dir).map(drop)?)).unwrap();
        helper.begin(Job::Probe(dir.path().join("nodes/n"))).unwrap();
        assert!(helper.busy().is_some());
        assert!(helper.ended().await.unwrap().result.is_ok());
        assert!(helper.busy().is_none());
        std::fs::write(dir.path().join("file"), "").unwrap();
        helper.begin(Job::Probe(dir.path().join("file/n"))).unwrap();
        let error = helper.ended().await.unwrap().result.unwrap_err();
        assert!(error.text.contains("ENOTDIR") && !error.stale, "{}", error.text);
    }
}
