//! The kernel's door: one facility a file; mechanism, never policy.
