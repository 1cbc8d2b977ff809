//! `#[task]`.
//!
//! ```text
//! #[task] fn area(side: f64) -> f64 { … }
//!
//!    struct area;                                  the mark: a type of its own, with the function's name
//!    impl Deref for area → fn(f64) -> f64          so that `area(2.0)` calls the function
//!    impl NamedTask for area                       name, signature, function; argument and value
//!    inventory::submit!(Registered::of::<area>())  so that the name is found
//! ```
//!
//! A trait cannot be implemented for a function: its type has no name. So the function moves to where only these implementations see it.

use crate::root::root;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::Parser;
use syn::{Error, FnArg, Ident, ItemFn, LitStr, Result, ReturnType, Signature, Type, parse_quote};

pub(crate) fn mark(arguments: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let given = name_in(arguments)?;
    let signature = &function.sig;
    check(signature)?;
    let name = &signature.ident;
    let parameters = types(signature)?;
    let value: Type = match &signature.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, of) => (**of).clone(),
    };
    let text = match given {
        Some(text) => quote!(#text),
        None => quote!(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name))),
    };
    let pointer = quote!(fn(#(#parameters),*) -> #value);
    let as_written = squeezed(&pointer.to_string());
    let (argument, call) = match parameters.as_slice() {
        [only] => (quote!(#only), quote!(#name)),
        several => {
            let parts: Vec<Ident> = (0..several.len()).map(|at| quote::format_ident!("part_{at}")).collect();
            (quote!((#(#several),*)), quote!(|(#(#parts),*)| #name(#(#parts),*)))
        }
    };
    let root = root("mp-pool", "pool");
    let named = quote!(#root::named);
    let (docs, others): (Vec<_>, Vec<_>) =
        function.attrs.iter().partition(|attribute| attribute.path().is_ident("doc"));
    let (visibility, body) = (&function.vis, &function.block);
    Ok(quote! {
        #(#docs)*
        #[allow(non_camel_case_types, dead_code)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #name;

        const _: () = {
            #(#others)*
            #signature #body

            #[automatically_derived]
            impl ::core::ops::Deref for #name {
                type Target = #pointer;

                fn deref(&self) -> &Self::Target {
                    const FUNCTION: #pointer = #name;
                    &FUNCTION
                }
            }

            #[automatically_derived]
            impl #named::NamedTask for #name {
                type Argument = #argument;
                type Value = #value;
                const NAME: &'static str = #text;
                const SIGNATURE: &'static str = #as_written;
                const FUNCTION: fn(#argument) -> #value = #call;
            }

            #named::inventory::submit! {
                #named::Registered::of::<#name>(::core::concat!(::core::file!(), ":", ::core::line!()))
            }
        };
    })
}

/// `name = "…"`, if it is there.
fn name_in(arguments: TokenStream) -> Result<Option<LitStr>> {
    let mut name: Option<LitStr> = None;
    syn::meta::parser(|meta| {
        if !meta.path.is_ident("name") {
            return Err(meta.error("only `name = \"…\"` can be said here"));
        }
        let text: LitStr = meta.value()?.parse()?;
        if text.value().is_empty() {
            return Err(Error::new(text.span(), "a name has at least one character"));
        }
        if name.replace(text).is_some() {
            return Err(meta.error("a task has one name"));
        }
        Ok(())
    })
    .parse2(arguments)?;
    Ok(name)
}

/// A registered name stands for one function that can be called by itself.
fn check(signature: &Signature) -> Result<()> {
    let refused = |what: &dyn ToTokens, text: &str| Err(Error::new_spanned(what, text));
    if let Some(token) = &signature.asyncness {
        return refused(token, "a task gives its value itself, no future of it: it cannot be `async`");
    }
    if let Some(token) = &signature.constness {
        return refused(token, "a task is called through a pointer, at run time: it cannot be `const`");
    }
    if let Some(token) = &signature.unsafety {
        return refused(token, "whoever knows a task's name can call it: it cannot be `unsafe`");
    }
    if let Some(token) = &signature.abi {
        return refused(token, "a task is a Rust function: it cannot be `extern`");
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        return refused(&signature.generics, "a name stands for one function: a task cannot be generic");
    }
    Ok(())
}

fn types(signature: &Signature) -> Result<Vec<Type>> {
    let one = |input: &FnArg| match input {
        FnArg::Receiver(receiver) => {
            Err(Error::new_spanned(receiver, "a task is a function: a method cannot be one"))
        }
        FnArg::Typed(typed) if matches!(*typed.ty, Type::ImplTrait(_)) => {
            Err(Error::new_spanned(&typed.ty, "a name stands for one function: a task cannot be generic"))
        }
        FnArg::Typed(typed) => Ok((*typed.ty).clone()),
    };
    signature.inputs.iter().map(one).collect()
}

/// Without the spaces that the compiler's printing of tokens may put here or there.
fn squeezed(text: &str) -> String {
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let mut squeezed = String::new();
    for part in text.split_whitespace() {
        let glued = squeezed.ends_with(is_word) && part.starts_with(is_word);
        if glued {
            squeezed.push(' ');
        }
        squeezed.push_str(part);
    }
    squeezed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(arguments: TokenStream, function: TokenStream) -> Result<String> {
        let function: ItemFn = syn::parse2(function)?;
        mark(arguments, &function).map(|tokens| squeezed(&tokens.to_string()))
    }

    #[test]
    fn what_a_name_cannot_stand_for_is_refused() {
        for (function, text) in [
            (
                quote!(
                    async fn f(n: u32) -> u32 {
                        n
                    }
                ),
                "async",
            ),
            (
                quote!(
                    const fn f(n: u32) -> u32 {
                        n
                    }
                ),
                "const",
            ),
            (
                quote!(
                    unsafe fn f(n: u32) -> u32 {
                        n
                    }
                ),
                "unsafe",
            ),
            (
                quote!(
                    extern "C" fn f(n: u32) -> u32 {
                        n
                    }
                ),
                "extern",
            ),
            (
                quote!(
                    fn f<T>(n: T) -> T {
                        n
                    }
                ),
                "generic",
            ),
            (
                quote!(
                    fn f<'a>(n: &'a str) -> u32 {
                        1
                    }
                ),
                "generic",
            ),
            (
                quote!(
                    fn f(n: impl Into<u32>) -> u32 {
                        n.into()
                    }
                ),
                "generic",
            ),
            (
                quote!(
                    fn f(self, n: u32) -> u32 {
                        n
                    }
                ),
                "method",
            ),
        ] {
            let error = marked(TokenStream::new(), function).unwrap_err().to_string();
            assert!(error.contains(text), "{text}: {error}");
        }
        let function = || {
            quote!(
                fn f(n: u32) -> u32 {
                    n
                }
            )
        };
        for (arguments, text) in [
            (quote!(title = "f"), "only `name"),
            (quote!(name = ""), "at least one character"),
            (quote!(name = "a", name = "b"), "one name"),
        ] {
            let error = marked(arguments, function()).unwrap_err().to_string();
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn the_signature_is_told_as_written_without_loose_spaces() {
        let text = |function| marked(TokenStream::new(), function).unwrap();
        let one = text(quote!(
            fn f(list: Vec<Option<&'static [u8; 4]>>) -> Box<dyn Foo> {
                todo()
            }
        ));
        assert!(one.contains("\"fn(Vec<Option<&'static[u8;4]>>)->Box<dyn Foo>\""), "{one}");
        assert!(
            text(quote!(
                fn f() {}
            ))
            .contains("\"fn()->()\"")
        );
        assert!(
            text(quote!(
                fn f(a: u8, b: u16) {}
            ))
            .contains("\"fn(u8,u16)->()\"")
        );
    }

    #[test]
    fn a_name_is_the_path_or_what_is_said() {
        let function = || {
            quote!(
                pub fn area(side: f64) -> f64 {
                    side
                }
            )
        };
        let plain = marked(TokenStream::new(), function()).unwrap();
        assert!(plain.contains("concat!(::core::module_path!(),\"::\",::core::stringify!(area))"), "{plain}");
        assert!(marked(quote!(name = "shapes.area"), function()).unwrap().contains("\"shapes.area\""));
    }
}
