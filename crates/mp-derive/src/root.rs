//! Where the macros find the crate whose items they name.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::Ident;

/// The path to crate `package` from the crate that uses the macro: the crate itself, a dependency, or module `inside` of the front door.
pub(crate) fn root(package: &str, inside: &str) -> TokenStream {
    let ident = |name: &str| Ident::new(name, Span::call_site());
    let own = ident(&package.replace('-', "_"));
    let (found, module) = match crate_name(package) {
        Ok(found) => (found, None),
        Err(_) => match crate_name("multiproc") {
            Ok(found) => (found, Some(ident(inside))),
            // The compiler then says which crate is missing.
            Err(_) => return quote!(::#own),
        },
    };
    let name = match (found, &module) {
        (FoundCrate::Name(name), _) => ident(&name),
        (FoundCrate::Itself, None) => own,
        (FoundCrate::Itself, Some(_)) => ident("multiproc"),
    };
    module.map_or_else(|| quote!(::#name), |module| quote!(::#name::#module))
}
