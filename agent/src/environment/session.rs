//! `exec` and `console`: the node's side of `lodge_model::environment::session`.
