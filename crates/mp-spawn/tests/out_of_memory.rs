//! Processes that get no more memory: killed by the kernel, or refused an allocation.
#![expect(clippy::unwrap_used, reason = "tests")]

use mp_channel::{Receiver, Sender, channel};
use mp_spawn::{JoinError, Process, Resource, StartMethod, Stdio};
use mp_testkit::{proc, watchdog};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(100);
const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];
/// The control group that a part of a test is to move into.
const GROUP: &str = "MP_SPAWN_GROUP";

/// What the group may use. The part of the test that is in it takes a tenth.
const MOST_BYTES: usize = 64 << 20;
/// What a child takes at most, should nobody stop it.
const HOARD_BYTES: usize = 4 * MOST_BYTES;

/// A control group with a limit of memory, of this test alone; removed at its end.
struct Group(PathBuf);

impl Group {
    /// Beside the own group, or below it; why it cannot be.
    fn new() -> Result<Self, String> {
        let read = |file: &str| std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
        if read("/proc/sys/vm/panic_on_oom")?.trim() == "2" {
            return Err(String::from("the machine would end with it"));
        }
        let groups = read("/proc/self/cgroup")?;
        // Lines read `number:controllers:group`.
        let own = |wanted: &dyn Fn(&str) -> bool| {
            let fields = groups.lines().map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>());
            fields
                .filter_map(|fields| Some((*fields.first()?, *fields.get(1)?)))
                .find(|(name, _)| wanted(name))
        };
        let first = own(&|names| names.split(',').any(|name| name == "memory"));
        let second = own(&str::is_empty);
        let first = first.map(|(_, group)| {
            ("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        });
        let second = second.map(|(_, group)| ("/sys/fs/cgroup", group, "memory.max", "memory.swap.max"));
        let mut why = String::from("there is no control group of memory");
        for (root, group, limit, swap) in [first, second].into_iter().flatten() {
            let own = Path::new(root).join(group.trim_start_matches('/'));
            // In version 2 a group with processes has no groups with limits below it.
            for above in [own.parent(), Some(own.as_path())]
                .into_iter()
                .flatten()
                .filter(|above| above.starts_with(root))
            {
                match Self::below(above, limit, swap) {
                    Ok(group) => return Ok(group),
                    Err(error) => why = format!("{}: {error}", above.display()),
                }
            }
        }
        Err(why)
    }

    fn below(above: &Path, limit: &str, swap: &str) -> std::io::Result<Self> {
        let path = above.join(format!("multiproc-test-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let group = Self(path);
        // The file is there if the group can have a limit.
        std::fs::OpenOptions::new().write(true).open(group.0.join(limit))?;
        std::fs::write(group.0.join(limit), MOST_BYTES.to_string())?;
        let swap = group.0.join(swap);
        if swap.exists() {
            let most = if limit == "memory.max" { 0 } else { MOST_BYTES };
            std::fs::write(swap, most.to_string())?;
        }
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Whoever was in it ends with the part of the test, or soon after.
        let until = Instant::now() + Duration::from_secs(5);
        proc::until(|| std::fs::remove_dir(&self.0).is_ok() || Instant::now() > until);
    }
}

/// Takes memory until it is stopped, once it may; how much it got.
fn hoard((runs, go): (Sender<()>, Receiver<()>)) -> usize {
    // The kernel is to choose this process, not its parent, which is in the same group.
    std::fs::write("/proc/self/oom_score_adj", "1000").unwrap();
    runs.send(()).unwrap();
    go.recv().unwrap();
    let mut hoard = Vec::new();
    for _ in 0..HOARD_BYTES >> 20 {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    hoard.len() << 20
}

/// How many processes the kernel has ended for lack of memory, on the whole machine.
fn kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.parse().ok()
}

#[test]
fn a1_a_process_that_the_kernel_ends_for_lack_of_memory_is_told_as_such() {
    let _watchdog = watchdog(LONG);
    let Some(group) = std::env::var_os(GROUP) else {
        let group = match Group::new() {
            Ok(group) => group,
            Err(why) => return println!("skipped: no control group can be made here: {why}"),
        };
        let mut part = Command::new(std::env::current_exe().unwrap());
        let name = "a1_a_process_that_the_kernel_ends_for_lack_of_memory_is_told_as_such";
        let part = part.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(GROUP, &group.0);
        let output = part.output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "{said:?}");
        return println!("{}", said[0]);
    };
    // It counts what happens in its own group, where there is a counter, so it has to be there before it starts others.
    if let Err(error) = std::fs::write(Path::new(&group).join("cgroup.procs"), std::process::id().to_string())
    {
        return println!("skipped: the control group cannot be entered: {error}");
    }
    for method in METHODS {
        let builder = Process::builder().start_method(method);
        let before = kills();

        let (says, said) = channel(1).unwrap();
        let (sender, gate) = channel(1).unwrap();
        let child = builder.spawn(hoard, (says.clone(), gate.clone())).unwrap();
        said.recv().unwrap();
        child.kill().unwrap();
        let error = child.join().unwrap_err();
        let is_told = |error: &JoinError, lack| matches!(error, JoinError::Killed { signal: 9, out_of_memory, .. } if *out_of_memory == lack);
        // Unless another process of the machine ran out of memory meanwhile.
        assert!(is_told(&error, false) || kills() != before, "{method}: {error:?}");

        let child = builder.spawn(hoard, (says, gate)).unwrap();
        sender.send(()).unwrap();
        let error = child.join().expect_err("nobody stopped it");
        assert!(is_told(&error, true), "{method}: {error:?}");
        assert!(error.to_string().contains("ran out of memory"), "{error}");
        assert!(before.is_none() || kills() > before, "the kernel's own count");
    }
    println!("the kernel ended a child with each start method");
}

#[test]
fn a1_an_allocation_beyond_the_limit_of_address_space_is_told_as_the_abort_that_it_is() {
    let _watchdog = watchdog(LONG);
    for method in METHODS {
        let builder = Process::builder().start_method(method).limit(Resource::AddressSpace, 256 << 20);
        let mut child = builder
            .clone()
            .stderr(Stdio::Piped)
            .spawn(|bytes: usize| vec![1_u8; bytes].len(), 512 << 20)
            .unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let error = child.join().unwrap_err();
        assert!(
            matches!(error, JoinError::Killed { signal: 6, out_of_memory: false, .. }),
            "{method}: {error:?}"
        );
        assert!(error.to_string().contains("SIGABRT"), "{error}");
        assert!(said.contains("memory allocation of 536870912 bytes failed"), "{method}: {said}");
        // An allocation that may fail does, and the process goes on.
        let tried =
            builder.spawn(|bytes: usize| Vec::<u8>::new().try_reserve_exact(bytes).is_err(), 512 << 20);
        assert!(tried.unwrap().join().unwrap(), "{method}");
    }
}
