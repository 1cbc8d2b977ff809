//! Starts processes that run a Rust function and give its value back.
