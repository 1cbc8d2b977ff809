//! The tools of multiproc: test, ci, bench, behaviours, soak.
fn main() {}
