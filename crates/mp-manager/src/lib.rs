//! Managed objects of multiproc: nothing yet.
