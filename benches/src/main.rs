//! Benchmarks of multiproc beside their limits and peers.
fn main() {}
