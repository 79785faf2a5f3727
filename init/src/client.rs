//! The command beside PID 1: `poweroff`, `reboot`, `halt`, `init status`, `init restart SERVICE`, `init events`.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use lodge_model::{
    initproto::{Down, Line, Request},
    paths,
};
use lodge_sys::power;

const HELP: &str = "\
init asks the machine's PID 1 for something. Only root may.

  poweroff, init poweroff   switch the machine off, in order
  reboot, init reboot       restart it, in order
  halt, init halt           stop it and leave it switched on
      -f, --force           at once, with nothing but a sync: services are not stopped and what they hold is lost
  init status               the services: name, state, process, restarts
  init restart SERVICE      stop and start a service
  init events               the ends of processes without a parent, and shutdowns, as they happen
  init proceed              a shutdown that waits for the agent waits no longer
";

/// Run the command; its exit status.
pub fn main() -> ExitCode {
    let words: Vec<String> = env::args().collect();
    match parse(&words).and_then(|command| run(&command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", words.first().map_or("init", |name| base(name)));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Ask(Request),
    Force(Down),
}

fn parse(words: &[String]) -> Result<Command> {
    let name = words.first().map_or("init", |name| base(name));
    let arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let line: Vec<&str> = match name {
        "poweroff" | "reboot" | "halt" => [&[name], arguments.as_slice()].concat(),
        _ => arguments,
    };
    if line.iter().any(|word| matches!(*word, "-h" | "--help" | "help")) {
        return Ok(Command::Help);
    }
    Ok(match line.as_slice() {
        [] => Command::Help,
        ["status"] => Command::Ask(Request::Status),
        ["events"] => Command::Ask(Request::Subscribe),
        ["proceed"] => Command::Ask(Request::Proceed),
        ["restart", service] => Command::Ask(Request::Restart((*service).to_owned())),
        [down] if down.parse::<Down>().is_ok() => Command::Ask(Request::Shutdown(down.parse()?)),
        [down, "-f" | "--force"] if down.parse::<Down>().is_ok() => Command::Force(down.parse()?),
        other => bail!("not understood: {:?}; `init --help` shows what there is", other.join(" ")),
    })
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Help => print!("{HELP}"),
        Command::Force(down) => {
            nix::unistd::sync();
            match power::go_down(*down)? {}
        }
        Command::Ask(request) => ask(request)?,
    }
    Ok(())
}

fn ask(request: &Request) -> Result<()> {
    let connect = || UnixStream::connect(paths::INIT_SOCKET);
    let mut stream = connect().with_context(|| format!("connecting to init at {} (are you root?)", paths::INIT_SOCKET))?;
    stream.write_all(format!("{request}\n").as_bytes()).context("asking init")?;
    for line in BufReader::new(stream).lines() {
        let line = line.context("reading init's answer")?;
        match line.parse()? {
            Line::Ok if *request == Request::Subscribe => {}
            Line::Ok => return Ok(()),
            Line::Error(why) => bail!("{why}"),
            Line::Service { name, state, pid, restarts } => println!("{name:<14} {state:<9} {pid:>7} {restarts:>4}"),
            Line::Exit { .. } | Line::Shutdown { .. } => println!("{line}"),
        }
    }
    bail!("init hung up")
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn names_and_arguments_mean_the_same() {
        for line in ["/usr/sbin/poweroff", "init poweroff"] {
            assert_eq!(parsed(line).unwrap(), Command::Ask(Request::Shutdown(Down::Poweroff)));
        }
        assert_eq!(parsed("reboot -f").unwrap(), Command::Force(Down::Reboot));
        assert_eq!(parsed("init status").unwrap(), Command::Ask(Request::Status));
        assert_eq!(parsed("init restart agent").unwrap(), Command::Ask(Request::Restart("agent".into())));
        assert_eq!(parsed("init").unwrap(), Command::Help);
        assert_eq!(parsed("reboot --help").unwrap(), Command::Help);
        assert!(parsed("init explode").unwrap_err().to_string().contains("--help"));
    }
}
