//! Test tools of multiproc: watchdog, killer, leak check, child processes.
