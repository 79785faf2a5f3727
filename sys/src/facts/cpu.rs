//! Processors and memory, from procfs (proc(5)).

use std::fs;

use anyhow::{Context as _, Result};

/// Logical processors.
pub fn count() -> Result<u32> {
    let text = read("/proc/cpuinfo")?;
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    u32::try_from(count).context("counting processors")
}

/// Model of the first processor; empty where the kernel says nothing.
pub fn model() -> Result<String> {
    let text = read("/proc/cpuinfo")?;
    let line = text.lines().find(|line| line.starts_with("model name"));
    Ok(line.and_then(|line| line.split_once(':')).map(|(_, model)| model.trim().to_owned()).unwrap_or_default())
}

/// Whether it is a virtual machine: a hypervisor says so in every processor's flags.
pub fn is_virtual() -> Result<bool> {
    let text = read("/proc/cpuinfo")?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    Ok(flags.is_some_and(|(_, flags)| flags.split_whitespace().any(|flag| flag == "hypervisor")))
}

/// Memory that the kernel can use, in bytes.
pub fn memory() -> Result<u64> {
    meminfo("MemTotal")
}

/// Memory that can be had without swapping, in bytes.
pub fn memory_available() -> Result<u64> {
    meminfo("MemAvailable")
}

fn meminfo(key: &str) -> Result<u64> {
    let text = read("/proc/meminfo")?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).with_context(|| format!("reading {key} in /proc/meminfo"))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_processors_and_memory() {
        assert!(super::count().unwrap() >= 1);
        assert!(super::memory().unwrap() > super::memory_available().unwrap());
    }
}
