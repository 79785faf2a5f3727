//! The virtual rack: a switch, a router with a DHCP server, and machines in QEMU with real firmware, and the tests that boot on it
//! exactly what is shipped.
//!
//! Why it exists: what Lodge promises is about bare machines, so it is shown on machines, from power-on, with nobody at them. The rack
//! knows the machines only from outside, as a person would: consoles, buttons, disks, cables, and the `lodge` command.
//!
//! It assumes QEMU 9 or newer, mtools and dosfstools, and needs no root. It links `model` alone of Lodge's crates, and never looks
//! into a running machine except through its console. Everything is a thread that blocks until something happens; waiting is always
//! on an event with a time limit, never a sleep.

pub mod accel;
pub mod api;
pub mod artifacts;
pub mod bmc;
pub mod console;
pub mod feed;
pub mod hosting;
pub mod machine;
pub mod media;
pub mod process;
pub mod qmp;
pub mod rack;
pub mod router;
pub mod scenario;
pub mod shell;
pub mod sockets;
pub mod switch;
pub mod tests;
pub mod timeline;
pub mod web;
