//! From an error to a sentence and an exit status.

use lodge_client::Error;

/// Done.
pub const OK: u8 = 0;
/// Failed, for another reason than those below.
pub const FAILED: u8 = 1;
/// The command line is wrong, or a question was answered with no.
pub const USAGE: u8 = 2;
/// There is no such thing.
pub const NOT_FOUND: u8 = 3;
/// Not allowed.
pub const NOT_ALLOWED: u8 = 4;
/// The center cannot be reached, or it is another one.
pub const UNREACHABLE: u8 = 5;
/// Refused as things are now.
pub const CONFLICT: u8 = 6;

/// `lodge env fsck` has found faults, and they are still there.
pub const DAMAGED: u8 = 7;

/// `lodge env exec` could not run the program, as ssh(1) tells it.
pub const NOT_RUN: u8 = 255;

/// A session ended without its program having ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRun(pub String);

/// What was asked for was not done, because whoever asked did not confirm it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotConfirmed(pub String);

/// The exit status for an error.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<NotConfirmed>().is_some() {
        return USAGE;
    }
    if error.downcast_ref::<NotRun>().is_some() {
        return NOT_RUN;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Refused { status: 404, .. }) => NOT_FOUND,
        Some(Error::Refused { status: 401 | 403, .. }) => NOT_ALLOWED,
        Some(Error::Refused { status: 409 | 423 | 503, .. }) => CONFLICT,
        Some(Error::Unreachable { .. } | Error::WrongCertificate { .. } | Error::BadCertificate { .. }) => UNREACHABLE,
        Some(Error::Refused { .. } | Error::Answer { .. }) | None => FAILED,
    }
}

/// What to do next, where it can be told.
pub fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<Error>()? {
        Error::Refused { status: 401, .. } => Some("log in with a token that is still good: `lodge login`"),
        Error::Refused { status: 404, .. } => {
            Some("`lodge env ls`, `lodge template ls` and `lodge node ls` show what there is")
        }
        Error::Unreachable { .. } => Some("is the center up, and is this its address? `lodge login` names another"),
        Error::Answer { .. } => Some("are this program and the center of the same version? `lodge --version`"),
        Error::Refused { .. } | Error::WrongCertificate { .. } | Error::BadCertificate { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn every_kind_has_its_exit_status_whatever_was_said_around_it() {
        let refused = |status| Error::Refused { status, message: "no".into() };
        let code = |error: Error| exit_code(&Err::<(), _>(error).context("showing node1").unwrap_err());
        assert_eq!([401, 403, 404, 409, 422, 500].map(|status| code(refused(status))), [4, 4, 3, 6, 1, 1]);
        assert_eq!(code(Error::Unreachable { url: "https://x".into(), why: "refused".into() }), 5);
        assert_eq!(exit_code(&anyhow::Error::new(NotConfirmed("no".into()))), 2);
        assert_eq!(exit_code(&anyhow::Error::new(refused(404)).context(NotRun("no program was run".into()))), 255);
        assert_eq!(exit_code(&anyhow::anyhow!("anything")), 1);
    }
}
