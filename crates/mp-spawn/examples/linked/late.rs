//! A constructor that the linker puts behind that of multiproc, since this file is linked last: see `xtask/src/linking.rs`.

#![no_std]

unsafe extern "C" {
    /// In the program, which counts.
    safe fn linked_construct();
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    linked_construct();
}
