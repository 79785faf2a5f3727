//! demo, test, image, iso: everything a developer runs.

fn main() {}
