//! What it costs this process to start a program. Alone in its file: other tests' programs would cost it something, too.

use std::process::Command;

use lodge_sys::process::{Home, prepare};
use nix::sys::resource::{UsageWho, getrusage};

const PAGE: usize = 4096;

#[test]
fn a_program_is_started_without_a_copy_of_this_process() {
    let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
    let mut memory = vec![1_u8; 4096 * PAGE];
    // Pages that are written to after a program was started, and have to be copied for that.
    let mut copied = |home: &Home<'_>| {
        let mut command = Command::new("/bin/true");
        prepare(&mut command, home).unwrap();
        assert!(command.status().unwrap().success());
        let before = faults();
        memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
        faults() - before
    };
    let shared = copied(&Home::default());
    // In a session of its own it has something to do before its exec.
    let forked = copied(&Home { session: true, ..Home::default() });
    assert!(shared * 8 < forked, "{shared} pages were copied, {forked} after a fork");
}
