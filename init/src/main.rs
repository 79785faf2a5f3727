//! PID 1 of a Lodge machine.

fn main() {}
