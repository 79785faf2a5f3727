//! Turns a machine with an empty disk into a Lodge node.

fn main() {}
