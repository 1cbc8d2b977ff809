//! Words one can wait on across processes: the crash-safe wake-up under the channels of multiproc.
