//! The node's agent.

fn main() {}
