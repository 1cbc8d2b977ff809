//! The primitives of mp-sync under random SIGKILLs: four processes use one, one of them at a time is killed and started again.
//!
//! ```text
//! this process: kills one of the four every 0 to 2 ms, starts another in its place, and now and then stands still until all have
//!               got on: a death ends all sleeps, so only after the last one would a lost wake-up show
//! place:        the primitive, what it guards, and words with which its users check each other
//! board:        how far each has got, which are about to be killed, whose death was told
//! ```
//!
//! After some hundred kills all are killed, the primitive is checked at rest, the session must hold nothing any more, and the next
//! batch begins with a new place. What each primitive promises is checked by its users, in `workers`.

mod workers;

use crate::soak_queue::kill;
use multiproc::{Message, Process, Receiver, Sender, Session, Shared, ShmSafe, channel};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The primitives that there is a soak for.
pub const NAMES: [&str; 9] =
    ["mutex", "recursive", "rwlock", "condvar", "semaphore", "event", "barrier", "once", "latch"];

/// Users of the primitive at a time.
const WORKERS: usize = 4;
/// Nobody killed, and one of the four does not get on for so long: stuck.
const STUCK: Duration = Duration::from_secs(20);
/// Kills until all is looked at, and begins anew.
const BATCH: u64 = 500;
/// One in so many kills is followed by a stand-still.
const STAND_STILL: u32 = 8;
/// Deaths told that a board has room for; later ones are counted only.
const TOLD_MAX: usize = 16 * 1024;
/// Processes of one batch, four of them to begin with.
const SERIAL_MAX: usize = 1024;

/// What all processes of a batch share beside the place.
#[derive(ShmSafe)]
#[repr(C)]
struct Board {
    progress: [AtomicU64; WORKERS],
    /// A bit for each process that was killed, or is about to be, by its serial number.
    doomed: [AtomicU64; SERIAL_MAX / 64],
    /// Deaths that were told, with the pid or without.
    told: AtomicU64,
    told_pids: [AtomicU32; TOLD_MAX],
}

impl Board {
    fn is_doomed(&self, serial: u32) -> bool {
        let serial = serial as usize % SERIAL_MAX;
        self.doomed[serial / 64].load(Ordering::SeqCst) & 1 << (serial % 64) != 0
    }

    fn doom(&self, serial: u32) {
        let serial = serial as usize % SERIAL_MAX;
        self.doomed[serial / 64].fetch_or(1 << (serial % 64), Ordering::SeqCst);
    }

    fn progress(&self) -> [u64; WORKERS] {
        self.progress.each_ref().map(|one| one.load(Ordering::Relaxed))
    }

    /// Notes that a death was told.
    fn told(&self, pid: Option<u32>) {
        let at = self.told.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = usize::try_from(at).ok().and_then(|at| self.told_pids.get(at)) {
            place.store(pid.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

/// Number among the four, serial number (from 1, never used twice), where all write, where faults are told.
type Me = (u32, u32, Shared<Board>, Sender<String>);

/// A primitive in use: what its users run, and what must hold when none of them lives.
trait Soaked: ShmSafe {
    /// A new one.
    fn make() -> multiproc::Result<Shared<Self>>
    where
        Self: Sized;

    /// One use of it, again and again until the process is killed; `fresh`: the first time in this process.
    fn turn(&self, user: &User<'_>, fresh: bool) -> Result<(), String>;

    /// What is wrong with it when all its users are dead; called once.
    fn at_rest(&self, board: &Board) -> Result<(), String>;
}

/// One of the processes.
struct User<'a> {
    slot: usize,
    serial: u32,
    board: &'a Board,
}

fn work<P: Soaked>(((slot, serial, board, faults), place): (Me, Shared<P>)) {
    let user = User { slot: slot as usize, serial, board: &board };
    let mut fresh = true;
    loop {
        if let Err(fault) = place.turn(&user, fresh) {
            // If nobody hears it any more the soak is over.
            let _ = faults.send(format!("process {serial} of slot {slot}: {fault}"));
            return;
        }
        fresh = false;
        board.progress[user.slot].fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs the soak of the primitive called `name`, if there is one; the report's `broken` lists what was found.
///
/// # Errors
/// If a process or a block of memory cannot be made.
pub fn soak(name: &str, time: Duration, kills_max: u64, seed: u64) -> Option<multiproc::Result<Value>> {
    let run = match name {
        "mutex" => run::<workers::MutexPlace>,
        "recursive" => run::<workers::RecursivePlace>,
        "rwlock" => run::<workers::RwLockPlace>,
        "condvar" => run::<workers::CondvarPlace>,
        "semaphore" => run::<workers::SemaphorePlace>,
        "event" => run::<workers::EventPlace>,
        "barrier" => run::<workers::BarrierPlace>,
        "once" => run::<workers::OncePlace>,
        "latch" => run::<workers::LatchPlace>,
        _ => return None,
    };
    Some(run(name, time, kills_max, seed))
}

#[derive(Default)]
struct Totals {
    kills: u64,
    turns: u64,
    told: u64,
    stand_stills: u64,
    longest: Duration,
    broken: Vec<String>,
}

fn run<P: Soaked + 'static>(name: &str, time: Duration, kills_max: u64, seed: u64) -> multiproc::Result<Value>
where
    (Me, Shared<P>): Message,
{
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut totals = Totals::default();
    while totals.broken.is_empty() && start.elapsed() < time && totals.kills < kills_max {
        let kills = BATCH.min(kills_max - totals.kills);
        batch::<P>(&mut random, kills, start + time, &mut totals)?;
        let audit = Session::current()?.audit();
        if audit.processes != 1
            || audit.objects != 0
            || audit.blocks != 0
            || audit.references != 0
            || !audit.counts_are_right
        {
            totals.broken.push(format!("left in the session: {audit:?}"));
        }
    }
    Ok(json!({
        "soak": name,
        "seed": seed,
        "seconds": start.elapsed().as_secs(),
        "kills": totals.kills,
        "turns": totals.turns,
        "deaths_told": totals.told,
        "stand_stills": totals.stand_stills,
        "longest_stand_still_ms": u64::try_from(totals.longest.as_millis()).unwrap_or(u64::MAX),
        "committed_bytes": Session::current()?.committed_bytes().unwrap_or(0),
        "broken": totals.broken,
    }))
}

fn batch<P: Soaked + 'static>(
    random: &mut fastrand::Rng,
    kills: u64,
    end: Instant,
    totals: &mut Totals,
) -> multiproc::Result<()>
where
    (Me, Shared<P>): Message,
{
    let board = Shared::<Board>::zeroed()?;
    let place = P::make()?;
    let (faults, faults_out) = channel::<String>(64)?;
    let mut serial = 0;
    let mut start = |slot: u32| {
        serial += 1;
        let me = (slot, serial, board.clone(), faults.clone());
        Process::spawn(work::<P>, (me, place.clone())).map(|process| (process, serial))
    };
    let mut users = [start(0)?, start(1)?, start(2)?, start(3)?];
    let mut killed: HashMap<u32, u64> = HashMap::new();
    let mut killed_here = 0;
    while killed_here < kills && Instant::now() < end {
        // Not to let somebody run: the moment of the kill is what is random here.
        std::thread::sleep(Duration::from_micros(random.u64(..2000)));
        let slot = random.u32(..4);
        let user = &mut users[slot as usize];
        board.doom(user.1);
        *killed.entry(user.0.pid()).or_default() += 1;
        // It is dead before the next one begins: no two are in the same slot.
        if user.0.kill().is_err() || !user.0.wait_timeout(STUCK)? {
            totals.broken.push(format!("process {} does not die", user.0.pid()));
            break;
        }
        let old = std::mem::replace(user, start(slot)?);
        kill(old.0, &mut totals.broken)?;
        killed_here += 1;
        let last = killed_here == kills;
        if last || random.u32(..STAND_STILL) == 0 {
            totals.stand_stills += 1;
            stand_still(&board, &faults_out, totals);
        }
        if !totals.broken.is_empty() {
            break;
        }
    }
    for (process, serial) in users {
        board.doom(serial);
        *killed.entry(process.pid()).or_default() += 1;
        kill(process, &mut totals.broken)?;
        killed_here += 1;
    }
    hear(&faults_out, totals);
    if totals.broken.is_empty()
        && let Err(fault) = place.at_rest(&board)
    {
        totals.broken.push(format!("at rest: {fault}"));
    }
    let told = board.told.load(Ordering::Relaxed);
    if told > killed_here {
        totals.broken.push(format!("{told} deaths told of {killed_here}"));
    }
    for pid in board.told_pids.iter().map(|pid| pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0) {
        match killed.get_mut(&pid) {
            Some(times) if *times > 0 => *times -= 1,
            Some(_) => totals.broken.push(format!("the death of {pid} was told more often than it died")),
            None => totals.broken.push(format!("the death of {pid} was told, which was not killed")),
        }
    }
    totals.told += told;
    totals.kills += killed_here;
    totals.turns += board.progress().iter().sum::<u64>();
    Ok(())
}

/// Kills nobody until every user has got on.
fn stand_still(board: &Board, faults: &Receiver<String>, totals: &mut Totals) {
    let (start, before) = (Instant::now(), board.progress());
    loop {
        hear(faults, totals);
        let now = board.progress();
        if !totals.broken.is_empty() || (0..WORKERS).all(|slot| now[slot] > before[slot] + 1) {
            break;
        }
        if start.elapsed() > STUCK {
            totals.broken.push(format!("stuck for {STUCK:?}: {before:?}, then {now:?} turns"));
            if std::env::var_os("MP_SOAK_KEEP").is_some() {
                eprintln!("stuck; this is process {}, for a debugger", std::process::id());
                std::thread::sleep(Duration::from_secs(3600));
            }
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    totals.longest = totals.longest.max(start.elapsed());
}

fn hear(faults: &Receiver<String>, totals: &mut Totals) {
    while let Ok(fault) = faults.try_recv() {
        totals.broken.push(fault);
    }
}
