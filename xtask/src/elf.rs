//! What a program file says about how it was linked: its headers, and the names of its sections.
//!
//! Source: elf(5), for files of 64 bits, lowest byte first.

/// How a program was linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elf {
    /// It may be loaded anywhere.
    pub(crate) is_pie: bool,
    /// It names no program that loads its libraries.
    pub(crate) is_static: bool,
    pub(crate) has_build_id: bool,
    /// It has a table of its symbols' names.
    pub(crate) has_symbols: bool,
}

const TYPE_SHARED: u64 = 3;
const SEGMENT_INTERPRETER: u64 = 3;
const SECTION_SYMBOLS: u64 = 2;

impl Elf {
    /// Of the bytes of a program file; `None` if it is none.
    pub(crate) fn read(file: &[u8]) -> Option<Elf> {
        let number = |at: usize, bytes: usize| {
            let mut number = [0; 8];
            number[..bytes].copy_from_slice(file.get(at..at.checked_add(bytes)?)?);
            Some(u64::from_le_bytes(number))
        };
        let place = |at, bytes| usize::try_from(number(at, bytes)?).ok();
        if file.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let (segments, sections) = (place(0x20, 8)?, place(0x28, 8)?);
        let (segment_size, segment_count) = (place(0x36, 2)?, place(0x38, 2)?);
        let (section_size, section_count, names) = (place(0x3a, 2)?, place(0x3c, 2)?, place(0x3e, 2)?);
        let segment = |n: usize| number(segments + n * segment_size, 4);
        let section = |n: usize| sections + n * section_size;
        let names = place(section(names) + 0x18, 8)?;
        let name = |n| file.get(names + place(section(n), 4)?..)?.split(|&byte| byte == 0).next();
        Some(Elf {
            is_pie: number(0x10, 2)? == TYPE_SHARED,
            is_static: !(0..segment_count).any(|n| segment(n) == Some(SEGMENT_INTERPRETER)),
            has_build_id: (0..section_count).any(|n| name(n) == Some(b".note.gnu.build-id")),
            has_symbols: (0..section_count).any(|n| number(section(n) + 4, 4) == Some(SECTION_SYMBOLS)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_read_and_nonsense_is_none() {
        let own = std::fs::read("/proc/self/exe").expect("this program can be read");
        let found = Elf::read(&own).expect("it is one");
        assert!(found.is_pie && !found.is_static && found.has_symbols, "{found:?}");
        assert_eq!(Elf::read(&own[..own.len() / 2]), None);
        assert_eq!(Elf::read(b"#!/bin/sh"), None);
        assert_eq!(Elf::read(&[0; 4096]), None);
    }
}
