//! The program files loaded into this process: names, load addresses, build ids and code segments.
//!
//! Source: elf(5), dl_iterate_phdr(3). Where a file has no build id, [`Object::identity`] is a hash of its executable
//! segments; it is never empty, so two files without build id are never taken for the same.

#![expect(unsafe_code, reason = "reading the ELF headers that the loader mapped")]

use std::ffi::CStr;
use std::ops::Range;

/// A loaded program file.
#[derive(Clone, Debug)]
pub struct Object {
    /// Path as the loader knows it; empty for the main program.
    pub name: String,
    /// Load address: what the file's own addresses are relative to.
    pub base: usize,
    /// Build id, or a hash of the code where there is none. 16 bytes or more.
    pub identity: Vec<u8>,
    /// Address ranges that hold code.
    pub code: Vec<Range<usize>>,
    /// Whether it names a loader, as every program does that is not static.
    pub has_loader: bool,
}

impl Object {
    /// Whether `address` lies in a code segment of this file.
    #[must_use]
    pub fn holds_code_at(&self, address: usize) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    /// Where the file lies, for processes that work in another directory, too: the loader's name, made absolute where the kernel tells how. Empty
    /// for the main program.
    #[must_use]
    pub fn path(&self) -> String {
        let is_relative = self.name.contains('/') && !self.name.starts_with('/');
        let found = is_relative.then(|| mapped_file(self.code.first()?.start)).flatten();
        found.unwrap_or_else(|| self.name.clone())
    }

    /// Whether this is the main program.
    #[must_use]
    pub fn is_main(&self) -> bool {
        self.name.is_empty()
    }
}

/// All loaded program files, the main program first.
#[must_use]
pub fn loaded() -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    // SAFETY: the callback gets the pointer we pass, for the duration of the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut objects).cast()) };
    objects
}

/// Loads the program file at `path`, with its dependencies; says whether it is there now.
#[must_use]
pub fn load(path: &str) -> bool {
    let Ok(path) = std::ffi::CString::new(path) else { return false };
    if path.is_empty() {
        return false;
    }
    // SAFETY: loading runs the file's constructors, as it did in the process that named it; the path is null-terminated.
    !unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) }.is_null()
}

/// The file that is mapped at `address`, of which `/proc/self/maps` has a line: `from-to permissions offset device inode path`.
fn mapped_file(address: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let number = |digits| usize::from_str_radix(digits, 16).ok();
        let path = rest.find('/').map(|at| rest[at..].to_owned());
        path.filter(|_| {
            number(from).is_some_and(|from| from <= address) && number(to).is_some_and(|to| address < to)
        })
    })
}

/// Whether `address` lies in the main program. Cheaper than [`loaded`].
#[must_use]
pub fn main_program_holds(address: usize) -> bool {
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        found: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid info for the duration of the call.
        let info = unsafe { &*info };
        // SAFETY: the caller passed this pointer to its pair.
        let (address, holds) = unsafe { &mut *found.cast::<(usize, bool)>() };
        // SAFETY: the loader passes `dlpi_phnum` program headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let offset = (*address as u64).wrapping_sub(info.dlpi_addr);
        *holds = headers.iter().any(|header| {
            header.p_type == libc::PT_LOAD && offset.wrapping_sub(header.p_vaddr) < header.p_memsz
        });
        // The main program is the first; that is enough.
        1
    }
    let mut found = (address, false);
    // SAFETY: the callback gets the pointer we pass, for the duration of the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut found).cast()) };
    found.1
}

unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    objects: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid info for the duration of the call.
    let info = unsafe { &*info };
    // SAFETY: `loaded` passed this pointer to its vector.
    let objects = unsafe { &mut *objects.cast::<Vec<Object>>() };
    let name = if info.dlpi_name.is_null() {
        String::new()
    } else {
        // SAFETY: the loader's names are null-terminated.
        unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy().into_owned()
    };
    // SAFETY: the loader passes `dlpi_phnum` program headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let base = usize::try_from(info.dlpi_addr).unwrap_or(0);
    let segment = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(usize::try_from(header.p_vaddr).unwrap_or(0));
        start..start.wrapping_add(usize::try_from(header.p_memsz).unwrap_or(0))
    };
    let code: Vec<Range<usize>> = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
        .map(segment)
        .collect();
    let bytes = |range: Range<usize>| {
        // SAFETY: the range is a segment that the loader mapped readable; code segments are readable on Linux.
        unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len()) }
    };
    let build_id = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
        .find_map(|header| build_id(bytes(segment(header))));
    let identity = build_id.unwrap_or_else(|| hash(code.iter().map(|range| bytes(range.clone()))));
    // The loader lists the main program first and without a name; the virtual dso has one.
    let name = if objects.is_empty() { String::new() } else { name };
    let has_loader = headers.iter().any(|header| header.p_type == libc::PT_INTERP);
    objects.push(Object { name, base, identity, code, has_loader });
    0
}

/// Finds the `NT_GNU_BUILD_ID` note.
fn build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    let word = |bytes: &[u8], at: usize| {
        let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(four)).ok()
    };
    while notes.len() >= 12 {
        let (name_len, desc_len, kind) = (word(notes, 0)?, word(notes, 4)?, word(notes, 8)?);
        let desc_at = 12 + name_len.checked_next_multiple_of(4)?;
        let name = notes.get(12..12usize.checked_add(name_len)?)?;
        let desc = notes.get(desc_at..desc_at.checked_add(desc_len)?)?;
        if kind == 3 && name == b"GNU\0" && desc.len() >= 8 {
            return Some(desc.to_vec());
        }
        notes = notes.get(desc_at + desc_len.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// FNV-1a, 128 bit; see the FNV page of Fowler, Noll and Vo. An identity, not a defence against forgery.
fn hash<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in parts.flatten() {
        hash ^= u128::from(*byte);
        hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    hash.to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_program_is_first_and_holds_this_function() {
        let objects = loaded();
        assert!(objects[0].is_main() && objects[0].has_loader);
        let here = the_main_program_is_first_and_holds_this_function as fn() as usize;
        assert!(objects[0].holds_code_at(here));
        assert!(!objects[0].holds_code_at(0));
        assert!(main_program_holds(here));
        assert!(!main_program_holds(libc::getpid as *const () as usize));
        assert!(objects.iter().all(|object| object.identity.len() >= 8));
        assert!(objects.iter().skip(1).all(|object| !object.is_main()));
    }

    #[test]
    fn a_path_from_the_working_directory_is_made_one_from_the_root() {
        let library = loaded().into_iter().find(|object| object.name.contains("libc.so")).unwrap();
        assert_eq!(library.path(), library.name);
        let relative = Object { name: String::from("../libc.so"), ..library.clone() };
        let found = relative.path();
        assert!(found.starts_with('/') && found.contains("libc"), "{found}");
        assert_eq!(mapped_file(0), None);
        let not_mapped = Object { code: Vec::new(), ..relative };
        assert_eq!(not_mapped.path(), "../libc.so");
        assert_eq!(loaded()[0].path(), "", "the main program");
    }

    #[test]
    fn a_build_id_is_found_among_notes_and_garbage_is_none() {
        let mut notes = Vec::new();
        for (kind, name, desc) in [(1_u32, b"GNU\0", &[9_u8; 16][..]), (3, b"GNU\0", &[5; 20][..])] {
            notes.extend(4_u32.to_ne_bytes());
            notes.extend(u32::try_from(desc.len()).unwrap().to_ne_bytes());
            notes.extend(kind.to_ne_bytes());
            notes.extend(name);
            notes.extend(desc);
        }
        assert_eq!(build_id(&notes), Some(vec![5; 20]));
        assert_eq!(build_id(&notes[..notes.len() - 1]), None);
        assert_eq!(build_id(&[0xff; 64]), None);
    }
}
