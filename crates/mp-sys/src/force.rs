//! `MP_FORCE=name,name`: fallbacks taken on purpose, so that tests can run them on a machine that would not need them.
//!
//! Known names: `no-waitv` (sleep on one word only), `no-noexec-seal` (memory files as before Linux 6.3),
//! `no-populate` (pages are touched one by one, as before Linux 5.14), `no-membarrier` (full fences on both sides),
//! `no-pidfd-info` (the status of somebody else's process is not told, as before Linux 6.15), `no-proc-children` (children are found by
//! looking at all processes, as without `CONFIG_PROC_CHILDREN`),
//! `no-tid-address` (no zygotes, as on kernels without `CONFIG_CHECKPOINT_RESTORE`).

use std::sync::OnceLock;

/// Whether `name` is among the forced fallbacks. Read once, at first use.
#[must_use]
pub fn is(name: &str) -> bool {
    static FORCED: OnceLock<Vec<String>> = OnceLock::new();
    let forced = FORCED.get_or_init(|| {
        let text = std::env::var("MP_FORCE").unwrap_or_default();
        text.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
    });
    forced.iter().any(|one| one == name)
}
