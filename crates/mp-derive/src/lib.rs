//! The derive macros of multiproc. Use them through `mp-shm` or `multiproc`.

mod shm_safe;

use proc_macro::TokenStream;

/// Derives `ShmSafe` for a struct: `repr(C)` or `repr(transparent)`, every field `ShmSafe`, no `Drop`.
///
/// What it cannot see it asserts where the type is used: that nothing is to be dropped, and that the layout is what the fields say.
#[proc_macro_derive(ShmSafe)]
pub fn shm_safe(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    shm_safe::derive(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
