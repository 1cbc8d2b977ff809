//! Frozen archives: read by many processes in place, and sealed against everybody.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::channel;
use mp_shm::frozen::FreezeError;
use mp_shm::sealed::SealedError;
use mp_shm::{Frozen, Message, SealedFrozen, Session, Value, rkyv};
use mp_spawn::Process;
use mp_testkit::watchdog;
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Table {
    names: Vec<String>,
    by_name: BTreeMap<String, Vec<u64>>,
}

fn table() -> Table {
    let names: Vec<String> = (0..1000).map(|number| format!("name number {number}")).collect();
    let by_name =
        names.iter().enumerate().map(|(at, name)| (name.clone(), vec![at as u64; at % 7])).collect();
    Table { names, by_name }
}

fn sum(table: &ArchivedTable) -> u64 {
    let of = |name: &rkyv::string::ArchivedString| table.by_name.get(name.as_str()).unwrap().iter();
    table.names.iter().flat_map(of).map(|number| number.to_native()).sum()
}

fn read((frozen, other): (Frozen<Table>, Frozen<Table>)) -> (u64, bool) {
    (sum(&frozen), std::ptr::from_ref(&*frozen) == std::ptr::from_ref(&*other))
}

#[test]
fn d10_ten_processes_read_one_frozen_archive_in_place() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let frozen = Frozen::new(&table()).unwrap();
    let expected = sum(&frozen);
    let before = Session::current().unwrap().committed_bytes().unwrap();
    let start = |_| Process::spawn(read, (frozen.clone(), frozen.clone())).unwrap();
    let children: Vec<_> = (0..10).map(start).collect();
    for child in children {
        assert_eq!(child.join().unwrap(), (expected, true), "both handles show the same memory");
    }
    assert!(frozen.len_bytes() > 40_000);
    let after = Session::current().unwrap().committed_bytes().unwrap();
    let copied = after.saturating_sub(before) / frozen.len_bytes() as u64;
    assert!(copied < 8, "the archive was copied: {before} bytes before, {after} after");
}

#[test]
fn d10_what_has_handles_in_it_is_not_frozen() {
    let value = Value::new(1_u8).unwrap();
    let list = vec![Some(value.clone())];
    assert!(matches!(Frozen::new(&list), Err(FreezeError::Handles)));
    assert!(matches!(SealedFrozen::new(&list), Err(FreezeError::Handles)));
    assert!(Frozen::new(&vec![None::<Value<u8>>]).unwrap()[0].is_none());
    let (sender, receiver) = channel(1).unwrap();
    sender.send(list).unwrap();
    drop(receiver);
    value.set(2);
}

#[test]
fn d10_a_frozen_archive_outlives_who_froze_it() {
    fn freeze(words: Vec<String>) -> Frozen<Vec<String>> {
        Frozen::new(&words).unwrap()
    }
    let _watchdog = watchdog(Duration::from_secs(120));
    let words: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let frozen = Process::spawn(freeze, words.clone()).unwrap().join().unwrap();
    assert!(frozen.iter().map(|word| word.as_str()).eq(words.iter().map(String::as_str)));
}

/// Maps the first page of `fd` for writing, shared, and says whether the kernel let it.
fn can_map_writable(fd: impl AsFd, kind: MapFlags) -> bool {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    #[expect(unsafe_code, reason = "a mapping that is to fail, or is never touched")]
    // SAFETY: the kernel chooses a free place; nothing is done with the mapping.
    let mapped = unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, access, kind, fd, 0) };
    mapped.is_ok()
}

#[test]
fn d11_nobody_can_change_a_sealed_archive() {
    let sealed = SealedFrozen::new(&table()).unwrap();
    let expected = sum(&sealed);
    let fd = sealed.fd();
    assert!(!can_map_writable(fd, MapFlags::SHARED), "a writable mapping is refused");
    assert!(rustix::io::pwrite(fd, b"x", 64).is_err(), "writing is refused");
    assert!(rustix::fs::ftruncate(fd, 0).is_err(), "shrinking is refused");
    assert!(rustix::fs::ftruncate(fd, 1 << 20).is_err(), "growing is refused");
    assert!(rustix::fs::fcntl_add_seals(fd, SealFlags::FUTURE_WRITE).is_err(), "seals stay");
    let again = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    assert!(
        again.is_err() || !can_map_writable(again.unwrap(), MapFlags::SHARED),
        "another way in is shut, too"
    );
    assert_eq!(sum(&sealed), expected);
}

/// Opens a file of these bytes and seals, made by somebody else.
fn opened<T: Message>(bytes: &[u8], seals: SealFlags) -> Result<SealedFrozen<T>, SealedError> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("test", flags).unwrap();
    assert_eq!(rustix::io::write(&fd, bytes).unwrap(), bytes.len());
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    SealedFrozen::from_fd(fd)
}

#[test]
fn d11_corrupt_archives_are_refused_or_read_without_harm() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let names: Vec<String> = (0..6).map(|number| "long name".repeat(number)).collect();
    let by_name = names.iter().map(|name| (name.clone(), vec![1; name.len()])).collect();
    let sealed = SealedFrozen::new(&Table { names, by_name }).unwrap();
    let bytes = std::fs::read(format!("/proc/self/fd/{}", sealed.fd().as_raw_fd())).unwrap();
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let mut refused = 0;
    for _ in 0..5_000 {
        let mut wrong = bytes.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..wrong.len());
            wrong[at] = if random.bool() { random.u8(..) } else { wrong[at] ^ 1 << random.u8(..8) };
        }
        wrong.truncate(wrong.len() - random.usize(..200).saturating_sub(180));
        match opened::<Table>(&wrong, all) {
            // Whatever it says, it lies inside of the file.
            Ok(table) => {
                let letters: usize = table.names.iter().map(|name| name.as_str().chars().count()).sum();
                let numbers: usize = table.by_name.iter().map(|(name, list)| name.len() + list.len()).sum();
                assert!(letters + numbers <= 2 * wrong.len());
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0, "seed {seed}");
}

#[test]
fn d11_only_what_is_sealed_and_fits_is_opened() {
    let sealed = SealedFrozen::new(&vec![1_u64, 2, 3]).unwrap();
    let fd = || sealed.fd().try_clone_to_owned().unwrap();
    assert_eq!(SealedFrozen::<Vec<u64>>::from_fd(fd()).unwrap().len(), 3);
    assert!(matches!(SealedFrozen::<Vec<u32>>::from_fd(fd()), Err(SealedError::OtherType)));
    let bytes = std::fs::read(format!("/proc/self/fd/{}", sealed.fd().as_raw_fd())).unwrap();
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    assert_eq!(opened::<Vec<u64>>(&bytes, all).unwrap()[2], 3);
    assert!(
        matches!(opened::<Vec<u64>>(&bytes, all - SealFlags::WRITE), Err(SealedError::File(_))),
        "not sealed"
    );
    assert!(
        matches!(opened::<Vec<u64>>(&bytes, all - SealFlags::SHRINK), Err(SealedError::File(_))),
        "not sealed"
    );
    assert!(matches!(opened::<Vec<u64>>(&bytes[..80], all), Err(SealedError::NotFrozen)), "cut off");
    assert!(matches!(opened::<Vec<u64>>(&bytes[..10], all), Err(SealedError::NotFrozen)), "cut off");
    let mut wrong = bytes.clone();
    // The length of the vector: the last word of the archive's root.
    let last = wrong.len() - 4;
    wrong[last..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(opened::<Vec<u64>>(&wrong, all), Err(SealedError::Invalid(_))), "not an archive");
}

fn read_sealed(path: String) -> u64 {
    sum(&SealedFrozen::<Table>::from_fd(File::open(path).unwrap().into()).unwrap())
}

#[test]
fn d11_ten_processes_read_one_sealed_archive() {
    let _watchdog = watchdog(Duration::from_secs(120));
    let sealed = SealedFrozen::new(&table()).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), sealed.fd().as_raw_fd());
    let children: Vec<_> = (0..10).map(|_| Process::spawn(read_sealed, path.clone()).unwrap()).collect();
    for child in children {
        assert_eq!(child.join().unwrap(), sum(&sealed));
    }
}
