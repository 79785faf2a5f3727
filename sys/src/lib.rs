//! The kernel's door: one facility a file; mechanism, never policy.

pub mod efivar;
pub mod kmsg;
pub mod mount;
pub mod process;
pub mod program;
