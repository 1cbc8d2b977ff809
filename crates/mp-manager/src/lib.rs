//! Managed objects: a server process that owns typed objects, and proxies to them in other processes.
//!
//! Nothing is here yet. The crate holds the name and the place in the house: above channels and processes, below the front door.
#![forbid(unsafe_code)]
