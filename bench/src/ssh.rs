//! Whether an ssh server answers: it says its version as soon as somebody connects (RFC 4253, 4.2).

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Between two tries: a server that is not there yet cannot tell when it is.
const TRY_AGAIN: Duration = Duration::from_millis(40);
/// How long one try may take: a container that is just being connected answers nothing at all.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a server that has taken the connection may take to speak.
const WORDS: Duration = Duration::from_secs(10);
/// It is given up then.
const LIMIT: Duration = Duration::from_secs(300);

/// Wait until one does at this address.
pub fn wait(address: Ipv4Addr) -> Result<()> {
    let begin = Instant::now();
    while !answers(SocketAddr::from((address, 22))) {
        if begin.elapsed() > LIMIT {
            bail!("no ssh server answers at {address}");
        }
        std::thread::sleep(TRY_AGAIN);
    }
    Ok(())
}

fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, PATIENCE) else { return false };
    let mut said = [0; 4];
    stream.set_read_timeout(Some(WORDS)).is_ok() && stream.read_exact(&mut said).is_ok() && said == *b"SSH-"
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener};

    use super::*;

    #[test]
    fn only_what_speaks_ssh_answers() {
        for (words, expected) in [("SSH-2.0-x\r\n", true), ("HTTP/1.0 400\r\n", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(words.as_bytes()));
            assert_eq!(answers(address), expected, "{words}");
            server.join().unwrap().unwrap();
        }
    }
}
