//! What it costs this process to start another one. Alone in its file: other tests' programs would cost it something, too.

use std::process::Command;

use lodge_sys::idmap::{IdMap, IdRange};
use lodge_sys::process::{Home, prepare};
use nix::sys::resource::{UsageWho, getrusage};

const PAGE: usize = 4096;

#[test]
fn programs_and_user_namespaces_are_made_without_a_copy_of_this_process() {
    let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
    let mut memory = vec![1_u8; 4096 * PAGE];
    // Pages that are written to afterwards, and have to be copied for that.
    let mut copied = |start: &dyn Fn()| {
        start();
        let before = faults();
        memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
        faults() - before
    };
    let program = |home: &Home<'_>| {
        let mut command = Command::new("/bin/true");
        prepare(&mut command, home).unwrap();
        assert!(command.status().unwrap().success());
    };
    // In a session of its own it has something to do before its exec.
    let forked = copied(&|| program(&Home { session: true, ..Home::default() }));
    let shared = copied(&|| program(&Home::default()));
    assert!(shared * 8 < forked, "{shared} pages were copied, {forked} after a fork");
    if nix::unistd::geteuid().is_root() {
        let shared = copied(&|| drop(IdMap::new(IdRange { base: 1_000_000, count: 65_536 }).unwrap()));
        assert!(shared * 8 < forked, "{shared} pages were copied for a user namespace, {forked} after a fork");
    }
}
