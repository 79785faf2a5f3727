//! Frames in a file for Wireshark (libpcap's file format, pcap-savefile(5)).

use std::{
    fs::File,
    io::{BufWriter, Result, Write as _},
    time::{SystemTime, UNIX_EPOCH},
};

/// Bytes kept of a frame: every header, and all of DHCP.
const SNAP: usize = 512;
/// A capture ends at this size, so that a forgotten one fills no disk.
const FILE_MAX: u64 = 512 << 20;

/// An open capture.
pub struct Capture {
    file: BufWriter<File>,
    written: u64,
}

impl Capture {
    /// Write the file's header.
    pub fn new(file: File) -> Result<Self> {
        let mut file = BufWriter::new(file);
        file.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
        file.write_all(&[2, 0, 4, 0])?;
        file.write_all(&[0; 8])?;
        file.write_all(&(SNAP as u32).to_le_bytes())?;
        file.write_all(&1_u32.to_le_bytes())?; // LINKTYPE_ETHERNET
        Ok(Self { file, written: 0 })
    }

    /// Add a frame, with the time of now.
    pub fn write(&mut self, frame: &[u8]) -> Result<()> {
        if self.written > FILE_MAX {
            return Ok(());
        }
        let kept = &frame[..frame.len().min(SNAP)];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for field in [now.as_secs() as u32, now.subsec_micros(), kept.len() as u32, frame.len() as u32] {
            self.file.write_all(&field.to_le_bytes())?;
        }
        self.written += 16 + kept.len() as u64;
        self.file.write_all(kept)
    }
}
