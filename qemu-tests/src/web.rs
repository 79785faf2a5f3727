//! A web server of the site, for bundles that are not the center's: http://10.77.0.5/ is what lies in a directory of the host.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{process::Process, router::Router};

/// Address of the server in the site.
pub const URL: &str = "http://10.77.0.5";

/// A running server.
pub struct Web {
    process: Process,
    /// What it serves.
    pub dir: PathBuf,
}

impl Web {
    /// Serve a new directory below `dir`.
    pub fn start(dir: &Path, router: &Router) -> Result<Self> {
        let served = dir.join("web");
        std::fs::create_dir_all(&served).with_context(|| format!("making {}", served.display()))?;
        let port = router.web_port.to_string();
        let arguments = ["-m", "http.server", "--bind", "127.0.0.1", "--directory", "web", &port].map(str::to_owned);
        let process = Process::spawn("web server", dir, "python3", &arguments, &[])?;
        let web = Self { process, dir: served };
        web.wait(router.web_port)?;
        Ok(web)
    }

    /// Put a file there under a name, in place of what had it.
    pub fn put(&self, name: &str, file: &Path) -> Result<()> {
        let partial = self.dir.join(format!(".{name}"));
        if partial.symlink_metadata().is_ok() {
            std::fs::remove_file(&partial).with_context(|| format!("removing {}", partial.display()))?;
        }
        let file = file.canonicalize().with_context(|| format!("looking for {}", file.display()))?;
        std::os::unix::fs::symlink(&file, &partial).with_context(|| format!("linking {}", file.display()))?;
        std::fs::rename(&partial, self.dir.join(name)).with_context(|| format!("putting {name} into place"))
    }

    /// Until it answers: the interpreter starts first, and cannot tell when it listens. Each try that is refused returns at once, so
    /// they are spaced by waiting for the process to end, which would be the other outcome.
    fn wait(&self, port: u16) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if self.process.wait(Duration::from_millis(50)).is_some() || started.elapsed() > Duration::from_secs(30) {
                bail!("the web server did not start: {}", self.process.last_words());
            }
        }
        Ok(())
    }
}
