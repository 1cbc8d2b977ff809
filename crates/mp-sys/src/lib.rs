//! The only part of multiproc that talks to the operating system: futexes, robust lists, sealed memory files, process starts.
