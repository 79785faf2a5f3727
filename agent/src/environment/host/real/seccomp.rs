//! What the kernel refuses to an environment's processes before it looks at their rights: calls that concern the whole machine, and calls
//! that a personal server has no use for but attackers have. Everything else is left to the user namespace, which decides by itself;
//! `mount`, `nft`, nested namespaces and an init of one's own work.
//!
//! | group | why | answer |
//! |---|---|---|
//! | modules, kexec, raw ports, swap, accounting, quotas | of the machine | EPERM |
//! | `open_by_handle_at` | names files past every mount point | EPERM |
//! | setting the clock | of the machine; reading it with `adjtimex` is left | EPERM |
//! | `syslog` | the machine's messages | EPERM |
//! | `bpf`, `perf_event_open`, `userfaultfd`, `io_uring_*` | much kernel code, little use here | EPERM; programs fall back |
//! | `keyctl` and its kin | the machine's key quota | ENOSYS: systemd and Kerberos then do without |
//! | obsolete calls | nobody needs them | ENOSYS |

use serde_json::{Value, json};

const EPERM: i32 = nix::libc::EPERM;
const ENOSYS: i32 = nix::libc::ENOSYS;

/// Calls that are refused, and with which error.
const REFUSED: &[(i32, &[&str])] = &[
    (
        EPERM,
        &[
            // Modules and other kernels.
            "create_module",
            "delete_module",
            "finit_module",
            "init_module",
            "kexec_file_load",
            "kexec_load",
            // Hardware, swap, accounting and quotas of the machine.
            "acct",
            "ioperm",
            "iopl",
            "quotactl",
            "quotactl_fd",
            "swapoff",
            "swapon",
            // Files past every mount point.
            "open_by_handle_at",
            // The machine's clock.
            "clock_settime",
            "clock_settime64",
            "settimeofday",
            "stime",
            // The machine's messages.
            "syslog",
            // Much kernel code that a process can reach.
            "bpf",
            "io_uring_enter",
            "io_uring_register",
            "io_uring_setup",
            "lookup_dcookie",
            "perf_event_open",
            "userfaultfd",
        ],
    ),
    (
        ENOSYS,
        &[
            "add_key",
            "keyctl",
            "request_key",
            // Obsolete.
            "_sysctl",
            "get_kernel_syms",
            "nfsservctl",
            "query_module",
            "sysfs",
            "uselib",
            "ustat",
            "vm86",
            "vm86old",
        ],
    ),
];

/// The profile, as `linux.seccomp` of the runtime specification.
pub(super) fn profile() -> Value {
    let refused = |(error, names): &(i32, &[&str])| json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": error});
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures(),
        "syscalls": REFUSED.iter().map(refused).collect::<Vec<_>>(),
    })
}

/// Every way a process of this machine can call the kernel: a call in a way that is not here kills it.
fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    }
}
