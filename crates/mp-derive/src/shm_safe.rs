//! `#[derive(ShmSafe)]`.

use crate::root::root;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result, parse_quote};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(
            &input.ident,
            "only structs can be shared in memory: not every bit pattern is a value of an enum or a union",
        ));
    };
    if !has_fixed_layout(input)? {
        return Err(Error::new_spanned(
            &input.ident,
            "put #[repr(C)] or #[repr(transparent)] on it: without, each build may lay it out in its own way",
        ));
    }
    if matches!(data.fields, Fields::Unit) {
        return Err(Error::new_spanned(&input.ident, "there is nothing in it to share"));
    }
    let root = root("mp-shm", "shm");
    let name = &input.ident;
    let text = name.to_string();
    let mut generics = input.generics.clone();
    for parameter in input.generics.type_params() {
        let parameter = &parameter.ident;
        generics.make_where_clause().predicates.push(parse_quote!(#parameter: #root::ShmSafe));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let members: Vec<_> = data.fields.members().collect();
    let consts = input.generics.const_params().map(|parameter| {
        let parameter = &parameter.ident;
        quote!(hash = #root::safe::mix(hash, #parameter as u64);)
    });
    Ok(quote! {
        // SAFETY: the layout is fixed by `repr`; every field is `ShmSafe`, so there is no pointer, and every bit pattern is a value;
        // that nothing is to be dropped is asserted.
        #[automatically_derived]
        unsafe impl #impl_generics #root::ShmSafe for #name #type_generics #where_clause {
            const LAYOUT: u64 = {
                assert!(!::core::mem::needs_drop::<Self>(), "a type in shared memory must not need to be dropped");
                let mut hash = #root::safe::layout(#text, ::core::mem::size_of::<Self>(), ::core::mem::align_of::<Self>());
                #(hash = #root::safe::mix(hash, <#types as #root::ShmSafe>::LAYOUT);)*
                #(hash = #root::safe::mix(hash, ::core::mem::offset_of!(Self, #members) as u64);)*
                #(#consts)*
                hash
            };
            const PADDED: bool =
                0 #(+ ::core::mem::size_of::<#types>())* != ::core::mem::size_of::<Self>()
                #(|| <#types as #root::ShmSafe>::PADDED)*;

            fn robust_words(&self, visit: &mut dyn FnMut(&#root::safe::RobustWord)) {
                #(#root::ShmSafe::robust_words(&self.#members, visit);)*
            }
        }
    })
}

/// Whether the layout is the same in every build. `packed` is refused: references to its fields may be misaligned.
fn has_fixed_layout(input: &DeriveInput) -> Result<bool> {
    let mut fixed = false;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("packed") {
                return Err(meta.error("fields of a packed struct cannot be shared: they may be misaligned"));
            }
            fixed |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            if meta.input.peek(syn::token::Paren) {
                let content;
                syn::parenthesized!(content in meta.input);
                content.parse::<syn::LitInt>()?;
            }
            Ok(())
        })?;
    }
    Ok(fixed)
}
