//! The steps of `Host`, done by this machine's kernel.
