//! Multiprocessing for Rust: processes, channels, pools over shared memory, safe under kills.
