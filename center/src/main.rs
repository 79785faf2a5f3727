//! The control center.

fn main() {}
