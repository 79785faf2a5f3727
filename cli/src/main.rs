//! The command line of operators and users.

fn main() {}
