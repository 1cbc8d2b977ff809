//! The macros of multiproc. Use them through `mp-shm`, `mp-pool` or `multiproc`.

mod root;
mod shm_safe;
mod task;

use proc_macro::TokenStream;

/// Derives `ShmSafe` for a struct: `repr(C)` or `repr(transparent)`, every field `ShmSafe`, no `Drop`.
///
/// What it cannot see it asserts where the type is used: that nothing is to be dropped, and that the layout is what the fields say.
#[proc_macro_derive(ShmSafe)]
pub fn shm_safe(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    shm_safe::derive(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Marks a function as a task with a name, by which another build of the program finds it.
///
/// The name is that of the function with its modules, `my_crate::shapes::area`, or what `#[task(name = "shapes.area")]` says.
/// In each build that has the function linked it is registered before `main`.
///
/// It is called as before, `area(2.0)`, and given to executors as `area`. Where a function pointer is wanted, as by
/// `Iterator::map` and `Pool::submit`, write `*area`: the function has become a value of a type of its own, which
/// also means that nothing else in its scope, no variable either, can have its name.
///
/// It has one argument for executors: the function's own if it has one parameter, a tuple of all if it has several, `()` if it has none.
///
/// # Errors
/// Of the compiler: the function is generic, `async`, `const`, `unsafe`, `extern`, or a method; its argument or value cannot travel.
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let function = syn::parse_macro_input!(function as syn::ItemFn);
    task::mark(arguments.into(), &function).unwrap_or_else(|error| error.to_compile_error()).into()
}
