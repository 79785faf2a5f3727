//! The virtual rack, and the tests that boot what is shipped.
