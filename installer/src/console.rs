//! Every console of the machine: VGA and serial, at the same time. Each has a progress bar of its own; serial consoles also get the
//! lines of `lodge_model::progress`, since logs and machines read there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

/// Bars are drawn this often a second; a serial line at 115200 baud carries it easily.
const HZ: u8 = 2;
const TEMPLATE: &str = "{prefix:>14} [{bar:20}] {percent:>3} % {wide_msg}";

/// All consoles.
#[derive(Debug)]
pub struct Consoles {
    terminals: Vec<Terminal>,
}

#[derive(Debug)]
struct Terminal {
    serial: bool,
    file: Arc<File>,
    bar: Option<ProgressBar>,
}

impl Consoles {
    /// Under init (our parent is process 1) all consoles of the kernel; else the terminal we were started from.
    pub fn open() -> Self {
        let names = if nix::unistd::getppid().as_raw() == 1 { names() } else { Vec::new() };
        let mut terminals: Vec<Terminal> = names.iter().filter_map(|name| terminal(name)).collect();
        if terminals.is_empty() {
            terminals.extend(own().map(|file| Terminal { serial: true, file: Arc::new(file), bar: None }));
        }
        Self { terminals }
    }

    /// For tests: one serial console that is a file.
    #[cfg(test)]
    pub fn to_file(file: File) -> Self {
        Self { terminals: vec![Terminal { serial: true, file: Arc::new(file), bar: None }] }
    }

    /// A line on every console.
    pub fn line(&self, text: &str) {
        self.terminals.iter().for_each(|terminal| terminal.line(text));
    }

    /// A line on the serial consoles only: what a bar shows elsewhere.
    pub fn serial_line(&self, text: &str) {
        self.terminals.iter().filter(|terminal| terminal.serial).for_each(|terminal| terminal.line(text));
    }

    /// Show a bar for a step.
    pub fn start_bar(&mut self, step: &str) {
        for terminal in &mut self.terminals {
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(Tty(Arc::clone(&terminal.file))), HZ);
            let bar = ProgressBar::with_draw_target(Some(100), target).with_prefix(step.to_owned());
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style.progress_chars("=> "));
            }
            terminal.bar = Some(bar);
        }
    }

    /// How far the step is.
    pub fn set_bar(&self, percent: u8, message: &str) {
        for bar in self.terminals.iter().filter_map(|terminal| terminal.bar.as_ref()) {
            bar.set_message(message.to_owned());
            bar.set_position(percent.into());
        }
    }

    /// Take the bar away.
    pub fn end_bar(&mut self) {
        for bar in self.terminals.iter_mut().filter_map(|terminal| terminal.bar.take()) {
            bar.finish_and_clear();
        }
    }
}

impl Terminal {
    fn line(&self, text: &str) {
        let write = || {
            // A console that cannot be written is no reason to stop.
            let _ = (&*self.file).write_all(format!("{text}\n").as_bytes());
        };
        match &self.bar {
            // Not its println: that fills lines up with blanks instead of ending them, which no log can take.
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

/// The kernel's consoles, and the first virtual terminal where there is one.
fn names() -> Vec<String> {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let mut names: Vec<String> = active.split_whitespace().map(str::to_owned).collect();
    if !names.iter().any(|name| name == "tty0") {
        names.push("tty0".to_owned());
    }
    names
}

fn terminal(name: &str) -> Option<Terminal> {
    let file = OpenOptions::new().write(true).custom_flags(nix::libc::O_NOCTTY).open(format!("/dev/{name}")).ok()?;
    // tty0, tty1… are screens; ttyS0, ttyAMA0, hvc0 are lines.
    let screen = name.strip_prefix("tty").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    Some(Terminal { serial: !screen, file: Arc::new(file), bar: None })
}

fn own() -> Option<File> {
    use std::os::fd::AsFd as _;
    io::stdout().as_fd().try_clone_to_owned().ok().map(File::from)
}

/// A terminal as indicatif wants it, in the escape sequences that every console understands (ECMA-48).
#[derive(Debug)]
struct Tty(Arc<File>);

impl Tty {
    fn put(&self, text: &str) -> io::Result<()> {
        (&*self.0).write_all(text.as_bytes())
    }

    fn step(&self, count: usize, letter: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.put(&format!("\x1b[{count}{letter}")) }
    }
}

impl TermLike for Tty {
    // What every console has; nobody can ask a serial line.
    fn width(&self) -> u16 {
        79
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.step(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.step(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.step(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.step(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.put(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
