//! Typed calls to the center over TLS pinned by fingerprint.
