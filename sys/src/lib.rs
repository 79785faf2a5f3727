//! The kernel's door: one facility a file; mechanism, never policy.

pub mod blkid;
pub mod block;
pub mod cgroup;
pub mod disc;
pub mod dm;
pub mod efivar;
pub mod facts;
pub mod freeze;
pub mod gpt;
pub mod idmap;
pub mod kmsg;
pub mod lock;
pub mod loopdev;
pub mod module;
pub mod mount;
pub mod nfs;
pub mod partitions;
pub mod power;
pub mod process;
pub mod program;
pub mod signal;
pub mod smbios;
pub mod sparse;
pub mod tree;
pub mod uevent;
pub mod watchdog;
