//! Why a call failed, in words that can be shown to an operator as they are.

use lodge_model::ids::Fingerprint;

use crate::pin::WrongPin;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The center answered, and the answer is no.
    #[error("the center refused: {message} (HTTP {status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The center's sentence.
        message: String,
    },
    /// No answer.
    #[error("the center at {url} cannot be reached: {why}")]
    Unreachable {
        /// The center.
        url: String,
        /// The innermost cause, as `Connection refused (os error 111)`.
        why: String,
    },
    /// Whoever answers there is not the center that was named.
    #[error(
        "the server at {url} is not the center that was named: expected CA {expected}, it presented {}; \
         check the address, and the fingerprint against the center's console",
        presented.as_ref().map_or_else(|| "no certificate".to_owned(), ToString::to_string)
    )]
    WrongCertificate {
        /// Address that was called.
        url: String,
        /// The pinned fingerprint.
        expected: Fingerprint,
        /// Fingerprint of the last certificate in the chain it presented.
        presented: Option<Fingerprint>,
    },
    /// The pinned CA was presented, but the server's own certificate does not hold under it.
    #[error("the certificate of the center at {url} does not hold: {why}")]
    BadCertificate {
        /// Address that was called.
        url: String,
        /// Why, for people.
        why: String,
    },
    /// The center answered with something that is not of this API version.
    #[error("the answer of the center at {url} is not understood: {why}")]
    Answer {
        /// The call.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Classify what the HTTP client says of a call to the center at `url`.
    pub(crate) fn from_http(url: &str, expected: &Fingerprint, error: &reqwest::Error) -> Self {
        let url = url.to_owned();
        if let Some(tls) = find_tls(error) {
            return match wrong_pin(tls) {
                Some(pin) => Error::WrongCertificate { url, expected: expected.clone(), presented: pin.presented.clone() },
                None => from_tls(url, tls),
            };
        }
        let why = match error.is_timeout() {
            true => "no answer in time".to_owned(),
            false => innermost(error),
        };
        Error::Unreachable { url, why }
    }
}

fn from_tls(url: String, tls: &rustls::Error) -> Error {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match tls {
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. } | Expired | ExpiredContext { .. }) => {
            Error::BadCertificate { url, why: format!("{tls}; check the clock of this machine") }
        }
        rustls::Error::InvalidCertificate(_) => Error::BadCertificate { url, why: tls.to_string() },
        // The server's side of a refused client certificate arrives as an alert.
        _ => Error::Unreachable { url, why: format!("TLS: {tls}") },
    }
}

/// The TLS error in a chain. `io::Error` hides its payload from `source()`, so it is asked separately.
fn find_tls<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn wrong_pin(error: &rustls::Error) -> Option<&WrongPin> {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => other.0.downcast_ref::<WrongPin>(),
        _ => None,
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
