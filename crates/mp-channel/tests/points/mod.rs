//! The crash points that users of channels pass, as the sources name them: a new one is covered by being there.

use std::collections::BTreeSet;

/// Points of what no channel uses; the own tests of mp-shm and mp-sync are about them.
const ELSEWHERE: &[&str] = &[
    "list.",
    "stamped.",
    "references.before_sole",
    "references.referring",
    "names.",
    "file.",
    "published.",
    "mutex.",
    "gate.",
    "slots.",
    "rwlock.",
    "semaphore.",
    "event.",
    "condvar.",
    "barrier.",
    "once.",
    "latch.",
];

pub(crate) fn of_channels() -> BTreeSet<String> {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let mut points = BTreeSet::new();
    for name in ["mp-shm", "mp-sync", "mp-channel"] {
        for file in std::fs::read_dir(crates.join(name).join("src")).unwrap() {
            let path = file.unwrap().path();
            let text = if path.is_file() { std::fs::read_to_string(path).unwrap() } else { continue };
            let named = text.split("crash::point(\"").skip(1).filter_map(|part| part.split('"').next());
            points.extend(named.map(ToOwned::to_owned));
        }
    }
    points.retain(|point| ELSEWHERE.iter().all(|elsewhere| !point.starts_with(elsewhere)));
    assert!(points.len() > 40, "the sources name their points: {points:?}");
    points
}
