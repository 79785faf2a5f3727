//! Steps of a boot. Each one declares what its failure means: without a required one there is no going on, and rescue says so;
//! another one may fail, and the machine goes on degraded and says that.

use std::time::Duration;

use anyhow::Result;

use crate::log;

/// What failed, why, and what a person at the console can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The step, as "mounting the state partition".
    pub what: String,
    /// The error chain.
    pub why: String,
    /// The next step for a person.
    pub advice: String,
}

/// A step that takes longer than this says how long it took.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// A step that the boot cannot do without.
pub fn required<T>(what: &str, advice: &str, step: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
    timed(what, step).map_err(|error| Failure { what: what.to_owned(), why: format!("{error:#}"), advice: advice.to_owned() })
}

/// A step that may fail: the machine goes on without it.
pub fn may_degrade<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Option<T> {
    let result = timed(what, step);
    result.map_err(|error| log::warning(&format!("{what} failed, going on without it: {error:#}"))).ok()
}

fn timed<T>(what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    log::info(what);
    let start = log::uptime();
    let result = step();
    let took = log::uptime().saturating_sub(start);
    if took >= WORTH_TELLING {
        log::notice(&format!("{what} took {:.1} s", took.as_secs_f64()));
    }
    result
}
