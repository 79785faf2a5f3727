//! Typed calls to the center over TLS pinned by fingerprint.
//!
//! Why it exists: installer, agent and `lodge` speak to the same API and must all know the center in the same way: not by a
//! name that a public authority vouches for, but by the SHA-256 of the center's own CA certificate (`lodge.ca=`).
//!
//! It assumes a tokio runtime around its async calls, and nothing else: the ring provider is passed explicitly, proxies in the
//! environment are ignored, redirects are not followed. Host names go through libc's resolver, whose `files` and `dns` parts
//! are built into glibc since 2.34 and so work in a static binary too; IP literals need no resolver.
//!
//! It never retries and never decides: callers know how long they can wait.

mod center;
mod download;
mod drain;
mod environments;
mod error;
mod failover;
mod keys;
mod pin;
mod rolling;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod ticket;

pub use center::{Auth, Center};
pub use download::Download;
pub use drain::{sign_certificate, sign_last_word, verify_certificate};
pub use environments::{Power, QuotaChange, Upload};
pub use error::Error;
pub use keys::{CsrPem, KeyPem, new_key_and_csr};
pub use session::{Session, SessionReceiver, SessionSender};
pub use ticket::verify_ticket;

#[cfg(test)]
mod tests;
