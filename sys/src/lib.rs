//! The kernel's door: one facility a file; mechanism, never policy.

pub mod blkid;
pub mod efivar;
pub mod facts;
pub mod gpt;
pub mod kmsg;
pub mod mount;
pub mod nfs;
pub mod partitions;
pub mod process;
pub mod program;
pub mod smbios;
