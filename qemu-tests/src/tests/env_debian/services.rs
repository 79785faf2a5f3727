//! Clients of what a server offers, on this host, each as far as a user gets with it: a page, a delivered mail, a file there and back, a
//! screen.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{PASSWORD, USER};
use crate::{rack::Rack, scenario::hold};

/// A service that has been started answers within this on the reference machine.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two tries: a service that does not listen yet cannot tell when it will.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Longest silence of a server.
const SILENCE: Duration = Duration::from_secs(30);

/// Try until it answers as it should.
pub fn answers(rack: &Rack, what: &str, ask: impl Fn() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > rack.host.scale(ANSWER) => {
                return Err(error.context(format!("{what} does not answer as it should")));
            }
            Err(_) => std::thread::sleep(TRY_AGAIN),
        }
    }
}

/// Get a page that holds `expected`.
pub fn http(port: u16, path: &str, expected: &str) -> Result<()> {
    let mut stream = connect(port)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: server\r\n\r\n").context("asking for a page")?;
    let mut page = String::new();
    stream.read_to_string(&mut page).context("reading a page")?;
    hold(page.starts_with("HTTP/1.1 200 ") && page.contains(expected), || format!("{path} is {page:?}"))
}

/// Send a mail.
pub fn smtp(port: u16, to: &str, text: &str) -> Result<()> {
    let mut mail = Dialogue::open(port, "220")?;
    for (line, code) in
        [("HELO host", "250"), ("MAIL FROM:<host@site>", "250"), (&format!("RCPT TO:<{to}>"), "250"), ("DATA", "354")]
    {
        mail.say(line, code)?;
    }
    mail.say(&format!("Subject: a test\r\n\r\n{text}\r\n."), "250")?;
    mail.say("QUIT", "221").map(drop)
}

/// Put a file there and get it back. Both ports lead to the server: that of the dialogue, and the one for data.
pub fn ftp(port: u16, data: u16) -> Result<()> {
    const FILE: &[u8] = b"there and back\n";
    let mut server = Dialogue::open(port, "220")?;
    server.say(&format!("USER {USER}"), "331")?;
    server.say(&format!("PASS {PASSWORD}"), "230")?;
    server.say("TYPE I", "200")?;
    server.say("EPSV", "229")?;
    let mut there = connect(data)?;
    server.say("STOR note", "150")?;
    there.write_all(FILE).context("sending a file")?;
    drop(there);
    server.expect("226")?;
    server.say("EPSV", "229")?;
    let mut here = connect(data)?;
    server.say("RETR note", "150")?;
    let mut back = Vec::new();
    here.read_to_end(&mut back).context("receiving a file")?;
    server.expect("226")?;
    hold(back == FILE, || format!("{:?} came back", String::from_utf8_lossy(&back)))
}

/// Open a screen of this size (RFC 6143, without authentication).
pub fn vnc(port: u16, size: (u16, u16)) -> Result<()> {
    const VERSION: &[u8; 12] = b"RFB 003.008\n";
    const WITHOUT_AUTHENTICATION: u8 = 1;
    let mut stream = connect(port)?;
    let version: [u8; 12] = read(&mut stream)?;
    hold(version == *VERSION, || format!("the server speaks {:?}", String::from_utf8_lossy(&version)))?;
    stream.write_all(VERSION).context("telling the version")?;
    let [kinds] = read(&mut stream)?;
    let mut offered = vec![0; kinds.into()];
    stream.read_exact(&mut offered).context("reading what is offered")?;
    hold(offered.contains(&WITHOUT_AUTHENTICATION), || format!("the server wants one of {offered:?}"))?;
    stream.write_all(&[WITHOUT_AUTHENTICATION]).context("choosing")?;
    let refused = u32::from_be_bytes(read(&mut stream)?);
    hold(refused == 0, || "the server lets nobody in".into())?;
    // Others may look on.
    stream.write_all(&[1]).context("asking for the screen")?;
    let [width, height] = [read(&mut stream)?, read(&mut stream)?].map(u16::from_be_bytes);
    hold((width, height) == size, || format!("the screen has {width} by {height} points"))
}

/// Lines there, numbered lines back.
struct Dialogue(BufReader<TcpStream>);

impl Dialogue {
    fn open(port: u16, code: &str) -> Result<Self> {
        let mut dialogue = Self(BufReader::new(connect(port)?));
        dialogue.expect(code)?;
        Ok(dialogue)
    }

    fn say(&mut self, line: &str, code: &str) -> Result<()> {
        write!(self.0.get_mut(), "{line}\r\n").with_context(|| format!("saying {line:?}"))?;
        self.expect(code).with_context(|| format!("having said {line:?}"))
    }

    /// The last line of an answer has a space after its number, the others a hyphen.
    fn expect(&mut self, code: &str) -> Result<()> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).context("reading an answer")? == 0 {
                bail!("the server has hung up");
            }
            match line.strip_prefix(code).and_then(|rest| rest.chars().next()) {
                Some(' ') => return Ok(()),
                Some('-') => {}
                _ => bail!("the server says {line:?}"),
            }
        }
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
    stream.set_read_timeout(Some(SILENCE)).context("setting a time limit")?;
    Ok(stream)
}

fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).context("reading an answer")?;
    Ok(bytes)
}
