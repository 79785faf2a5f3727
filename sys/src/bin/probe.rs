//! Tries what is asked of it and says how the kernel answered. A tool of the VM tests: they put it into an environment, to try there what
//! must be refused, and run the same on the node, where it must work. It is never shipped.
//!
//! `probe` reads deeds, one a line, and answers each with one line, `ok` or the name of an error number; `probe nested` does so as the
//! root of a new user namespace. `probe listen NAME` holds an abstract socket and `probe files DIR` makes empty files, both until they are
//! killed. `probe answers ADDRESS MILLISECONDS` asks a web server again and again, and says in how many microseconds it answered, the
//! fastest answer first.
#![expect(unsafe_code, reason = "system calls by name, with whatever arguments are asked for")]

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream},
    },
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use rustix::mount::{FsOpenFlags, fsconfig_create, fsopen};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => answer_all(),
        ["nested"] => enter_nested().and_then(|()| answer_all()),
        ["listen", name] => listen(name),
        ["files", dir] => make_files(Path::new(dir)),
        ["answers", address, millis] => answers(address.parse()?, Duration::from_millis(millis.parse()?)),
        _ => bail!("the head of sys/src/bin/probe.rs says what it takes"),
    }
}

fn answer_all() -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line.context("reading a deed")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match attempt(&words) {
            Ok(()) => println!("ok"),
            Err(error) => match errno(&error) {
                Some(errno) => println!("{errno:?}"),
                None => return Err(error.context(line)),
            },
        }
    }
    Ok(())
}

fn errno(error: &anyhow::Error) -> Option<Errno> {
    let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let raw = error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error());
    error.downcast_ref::<Errno>().copied().or_else(|| io.or(raw).map(Errno::from_raw))
}

fn attempt(words: &[&str]) -> Result<()> {
    match *words {
        ["call", name, ref arguments @ ..] => call(name, arguments),
        ["read", path] => Ok(File::open(path)?.read_exact(&mut [0])?),
        ["write", path, text] => Ok(OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())?),
        ["rewrite", path] => rewrite(Path::new(path)),
        ["device", dir, kind, major, minor] => device(Path::new(dir), kind, major.parse()?, minor.parse()?),
        ["fs", kind] => Ok(fsconfig_create(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?)?),
        ["mounted", kind, path] => within(kind, |dir| Ok(File::open(dir.join(path))?.read_exact(&mut [0])?)),
        ["mounted-rewrite", kind, path] => within(kind, |dir| rewrite(&dir.join(path))),
        ["connect", path] => match path.strip_prefix('@') {
            Some(name) => Ok(UnixStream::connect_addr(&UnixAddress::from_abstract_name(name)?).map(drop)?),
            None => Ok(UnixStream::connect(path).map(drop)?),
        },
        _ => Err(anyhow!("there is no such deed")),
    }
}

/// Write what is there already: where it works nothing changes.
fn rewrite(path: &Path) -> Result<()> {
    let text = fs::read(path)?;
    Ok(OpenOptions::new().write(true).open(path)?.write_all(&text)?)
}

fn device(dir: &Path, kind: &str, major: u64, minor: u64) -> Result<()> {
    let path = dir.join(format!("probe-{major}-{minor}"));
    let kind = if kind == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    mknod(&path, kind, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))?;
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut [0; 512]));
    fs::remove_file(&path)?;
    Ok(read?)
}

/// Do something below a new mount of a kernel file system, in a mount namespace of its own.
fn within(kind: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let dir = Path::new("/tmp");
    mount(Some(kind), dir, Some(kind), MsFlags::empty(), None::<&str>)?;
    let done = work(dir);
    umount(dir)?;
    done
}

fn call(name: &str, arguments: &[&str]) -> Result<()> {
    let number = match name {
        "bpf" => libc::SYS_bpf,
        "adjtimex" => libc::SYS_adjtimex,
        "clock_settime" => libc::SYS_clock_settime,
        "delete_module" => libc::SYS_delete_module,
        "init_module" => libc::SYS_init_module,
        "kexec_load" => libc::SYS_kexec_load,
        "open_by_handle_at" => libc::SYS_open_by_handle_at,
        "perf_event_open" => libc::SYS_perf_event_open,
        "sched_setscheduler" => libc::SYS_sched_setscheduler,
        "setpriority" => libc::SYS_setpriority,
        "shmget" => libc::SYS_shmget,
        "swapon" => libc::SYS_swapon,
        "syslog" => libc::SYS_syslog,
        _ => bail!("there is no call {name:?} here"),
    };
    let mut buffers: Vec<Vec<u8>> = Vec::new();
    let mut values = [0; 6];
    for (value, word) in values.iter_mut().zip(arguments) {
        *value = match buffer(word)? {
            None => libc::c_long::from(word.parse::<i32>()?),
            Some(bytes) => {
                buffers.push(bytes);
                // The bytes stay where they are when the list of buffers grows.
                buffers.last().map_or(0, |bytes| bytes.as_ptr() as libc::c_long)
            }
        };
    }
    let [one, two, three, four, five, six] = values;
    // SAFETY: each pointer is to a buffer of 4 KiB that outlives the call, more than any of these calls reads or writes at one.
    let result = unsafe { libc::syscall(number, one, two, three, four, five, six) };
    Ok(Errno::result(result).map(drop)?)
}

/// What an argument points to: `@TEXT`, `now` (a timespec), `u32:N:N…`; `None` for a number.
fn buffer(word: &str) -> Result<Option<Vec<u8>>> {
    let mut bytes = if let Some(text) = word.strip_prefix('@') {
        text.as_bytes().to_vec()
    } else if let Some(numbers) = word.strip_prefix("u32:") {
        let numbers: Result<Vec<u32>, _> = numbers.split(':').map(str::parse).collect();
        numbers?.into_iter().flat_map(u32::to_ne_bytes).collect()
    } else if word == "now" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        [now.as_secs().to_ne_bytes(), u64::from(now.subsec_nanos()).to_ne_bytes()].concat()
    } else {
        return Ok(None);
    };
    bytes.resize(4096, 0);
    Ok(Some(bytes))
}

fn enter_nested() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", "0 0 1")?;
    Ok(fs::write("/proc/self/gid_map", "0 0 1")?)
}

fn listen(name: &str) -> Result<()> {
    let listener = UnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?;
    for stream in listener.incoming() {
        drop(stream?);
    }
    Ok(())
}

/// When there is no room for another, one goes, so that it never ends.
fn make_files(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for number in 0_u64.. {
        if File::create(dir.join(number.to_string())).is_err() {
            // Not all numbers are there the second time.
            let _ = fs::remove_file(dir.join((number / 2).to_string()));
        }
    }
    Ok(())
}

fn answers(server: SocketAddr, length: Duration) -> Result<()> {
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < length {
        let asked = Instant::now();
        ask(server).with_context(|| format!("asking {server}"))?;
        times.push(asked.elapsed().as_micros());
    }
    times.sort_unstable();
    println!("{}", times.iter().map(u128::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}

fn ask(server: SocketAddr) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.contains("200 OK") { Ok(()) } else { Err(anyhow!("it answers {answer:?}")) }
}
