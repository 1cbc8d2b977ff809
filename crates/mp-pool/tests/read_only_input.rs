//! How much memory an input takes that all workers read. Alone in its file, since it looks at the whole session.

use mp_pool::Pool;
use mp_shm::Frozen;
use mp_testkit::watchdog;
use std::time::Duration;

/// In how many lines a word is.
fn count((text, word): (Frozen<Vec<String>>, String)) -> usize {
    text.iter().filter(|line| line.contains(&word)).count()
}

#[test]
fn e21_large_read_only_input_reaches_all_workers_once() {
    let _watchdog = watchdog(Duration::from_secs(60));
    let pool = Pool::builder().workers(2).build().unwrap();
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}")).collect();
    let text = Frozen::new(&lines).unwrap();
    let session = mp_shm::Session::current().unwrap();
    let before = session.committed_bytes().unwrap();
    let counts = pool.map(count, (0..100).map(|n| (text.clone(), n.to_string()))).unwrap();
    let expected = |word: usize| lines.iter().filter(|line| line.contains(&word.to_string())).count();
    assert!((0..100).step_by(9).all(|n| counts[n] == expected(n)));
    // A hundred times the text would be 40 MiB.
    let more = session.committed_bytes().unwrap() - before;
    assert!(more < 8 << 20, "{more} bytes");
}
