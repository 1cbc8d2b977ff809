//! `mp-inspect`: what the sessions and named segments of this user's programs hold, and who waits for what.
//!
//! Without arguments it looks at all processes it may look at; with paths, at those files. It only reads: it takes no lock and leaves no
//! trace, so a program that hangs can be looked at as it is.

#![forbid(unsafe_code)]

use mp_shm::inspect::{self, Participant, Report, SegmentReport, SessionReport};
use mp_shm::place::Wait;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let paths =
        if given.is_empty() { inspect::find().into_iter().map(|found| found.path).collect() } else { given };
    match show(&paths, &mut io::stdout().lock()) {
        // Who reads the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mp-inspect: writing the report: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn show(paths: &[PathBuf], out: &mut impl Write) -> io::Result<()> {
    if paths.is_empty() {
        writeln!(out, "no sessions and no segments")?;
    }
    for path in paths {
        match inspect::read(path) {
            Some(Report::Session(report)) => session(&report, out)?,
            Some(Report::Segment(report)) => segment(&report, out)?,
            None => writeln!(out, "{}: gone, or not of this version of multiproc", path.display())?,
        }
    }
    Ok(())
}

fn session(report: &SessionReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "session {}: {} KiB in use of {} MiB, {} recoveries{}",
        report.number,
        report.committed_bytes >> 10,
        report.size_bytes >> 20,
        report.recoveries,
        if report.dirty { ", one is due" } else { "" }
    )?;
    lock(report.lock_holder, out)?;
    participants(&report.participants, out)?;
    for (name, offset) in &report.names {
        writeln!(out, "  name {name:?} of the object at {offset:#x}")?;
    }
    for object in &report.objects {
        let [first, second] = object.holders;
        writeln!(out, "  {} at {:#x}: {first} + {second} holders", object.kind.name(), object.offset)?;
    }
    for ((kind, owner), blocks) in &report.blocks {
        let kind = mp_shm::handle::Kind(*kind).name();
        writeln!(out, "  process {owner} holds {} {kind} blocks, {} KiB", blocks.count, blocks.bytes >> 10)?;
    }
    if report.more_blocks {
        writeln!(out, "  there are more blocks")?;
    }
    waits(&report.waits, out)
}

fn segment(report: &SegmentReport, out: &mut impl Write) -> io::Result<()> {
    if report.owner == 0 {
        writeln!(out, "file: {} KiB, {} recoveries", report.size_bytes >> 10, report.recoveries)?;
    } else {
        writeln!(
            out,
            "segment {:?} of pid {}: {} KiB, {} recoveries",
            report.name,
            report.owner,
            report.size_bytes >> 10,
            report.recoveries
        )?;
    }
    lock(report.lock_holder, out)?;
    participants(&report.participants, out)?;
    waits(&report.waits, out)
}

fn lock(holder: Option<u32>, out: &mut impl Write) -> io::Result<()> {
    holder.map_or(Ok(()), |tid| writeln!(out, "  the domain's lock is held by thread {tid}"))
}

fn participants(list: &[Participant], out: &mut impl Write) -> io::Result<()> {
    for one in list {
        let state = match (one.alive, one.registered) {
            (false, _) => "dead",
            (true, true) => "takes part",
            (true, false) => "is registering",
        };
        writeln!(out, "  process {}: pid {} ({}) {state}", one.id, one.pid, one.name)?;
    }
    Ok(())
}

fn waits(list: &[Wait], out: &mut impl Write) -> io::Result<()> {
    for wait in list {
        writeln!(
            out,
            "  thread {} of pid {} waits: {:?} at {:#x}",
            wait.tid, wait.pid, wait.kind, wait.offset
        )?;
    }
    Ok(())
}
