//! Handles inside messages.
//!
//! A handle is archived as its index among the handles of its message. The bounds ask for a serializer that can carry handles, so one
//! that is serialised anywhere else does not compile.

use rkyv::rend::u32_le;

/// A handle in a message: its index among the message's handles.
#[derive(Clone, Copy, Debug, rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(transparent)]
pub struct ArchivedHandle {
    /// The index.
    pub index: u32_le,
}

/// Two handles of one value in a message.
#[derive(Clone, Copy, Debug, rkyv::Portable, rkyv::bytecheck::CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedPair {
    /// The first.
    pub first: ArchivedHandle,
    /// The second.
    pub second: ArchivedHandle,
}

/// Gives these items if types that serde knows can be messages, the feature `serde`. For the crates of this library.
#[cfg(feature = "serde")]
#[doc(hidden)]
#[macro_export]
macro_rules! if_serde {
    ($($item:item)*) => { $($item)* };
}

/// Gives nothing: the feature `serde` is off.
#[cfg(not(feature = "serde"))]
#[doc(hidden)]
#[macro_export]
macro_rules! if_serde {
    ($($item:item)*) => {};
}

/// Makes a type that covers another one with a handle, or a pair of them, a message; one that covers one handle can be published, too. For the
/// crates of this library.
#[doc(hidden)]
#[macro_export]
macro_rules! message_of_parts {
    ([$($param:ident: $bound:path),*] $of:ty, $make:path, $field:tt: ($first:ty, $second:ty)) => {
        impl<$($param: $bound),*> $crate::rkyv::Archive for $of {
            type Archived = $crate::codec::ArchivedPair;
            type Resolver = (u32, u32);

            fn resolve(&self, (first, second): (u32, u32), out: $crate::rkyv::Place<Self::Archived>) {
                $crate::rkyv::munge::munge!(let $crate::codec::ArchivedPair { first: one, second: two } = out);
                $crate::rkyv::Archive::resolve(&self.$field.0, first, one);
                $crate::rkyv::Archive::resolve(&self.$field.1, second, two);
            }
        }

        impl<$($param: $bound,)* S> $crate::rkyv::Serialize<S> for $of
        where
            S: $crate::codec::Attach + ?Sized,
        {
            fn serialize(&self, serializer: &mut S) -> Result<(u32, u32), S::Error> {
                let first = $crate::rkyv::Serialize::serialize(&self.$field.0, serializer)?;
                Ok((first, $crate::rkyv::Serialize::serialize(&self.$field.1, serializer)?))
            }
        }

        impl<$($param: $bound,)* D> $crate::rkyv::Deserialize<$of, D> for $crate::codec::ArchivedPair
        where
            D: $crate::codec::Detach + ?Sized,
        {
            fn deserialize(&self, deserializer: &mut D) -> Result<$of, D::Error> {
                let first: $first = $crate::rkyv::Deserialize::deserialize(&self.first, deserializer)?;
                let second: $second = $crate::rkyv::Deserialize::deserialize(&self.second, deserializer)?;
                Ok($make((first, second)))
            }
        }

        $crate::if_serde! {
            impl<$($param: $bound),*> $crate::serde::Serialize for $of {
                fn serialize<Ser: $crate::serde::Serializer>(&self, to: Ser) -> Result<Ser::Ok, Ser::Error> {
                    $crate::serde::Serialize::serialize(&(&self.$field.0, &self.$field.1), to)
                }
            }

            impl<'de, $($param: $bound),*> $crate::serde::Deserialize<'de> for $of {
                fn deserialize<De: $crate::serde::Deserializer<'de>>(from: De) -> Result<Self, De::Error> {
                    let parts: ($first, $second) = $crate::serde::Deserialize::deserialize(from)?;
                    Ok($make(parts))
                }
            }
        }
    };
    ([$($param:ident: $bound:path),*] $of:ty, $make:path, $field:tt: $inner:ty) => {
        impl<$($param: $bound),*> $crate::rkyv::Archive for $of {
            type Archived = $crate::codec::ArchivedHandle;
            type Resolver = u32;

            fn resolve(&self, index: u32, out: $crate::rkyv::Place<Self::Archived>) {
                $crate::rkyv::Archive::resolve(&self.$field, index, out);
            }
        }

        impl<$($param: $bound,)* S> $crate::rkyv::Serialize<S> for $of
        where
            S: $crate::codec::Attach + ?Sized,
        {
            fn serialize(&self, serializer: &mut S) -> Result<u32, S::Error> {
                $crate::rkyv::Serialize::serialize(&self.$field, serializer)
            }
        }

        impl<$($param: $bound,)* D> $crate::rkyv::Deserialize<$of, D> for $crate::codec::ArchivedHandle
        where
            D: $crate::codec::Detach + ?Sized,
        {
            fn deserialize(&self, deserializer: &mut D) -> Result<$of, D::Error> {
                let inner: $inner = $crate::rkyv::Deserialize::deserialize(self, deserializer)?;
                Ok($make(inner))
            }
        }

        $crate::if_serde! {
            impl<$($param: $bound),*> $crate::serde::Serialize for $of {
                fn serialize<Ser: $crate::serde::Serializer>(&self, to: Ser) -> Result<Ser::Ok, Ser::Error> {
                    $crate::serde::Serialize::serialize(&self.$field, to)
                }
            }

            impl<'de, $($param: $bound),*> $crate::serde::Deserialize<'de> for $of {
                fn deserialize<De: $crate::serde::Deserializer<'de>>(from: De) -> Result<Self, De::Error> {
                    let inner: $inner = $crate::serde::Deserialize::deserialize(from)?;
                    Ok($make(inner))
                }
            }
        }

        impl<$($param: $bound),*> $crate::published::Publishable for $of {
            const KIND: $crate::handle::Kind = <$inner as $crate::published::Publishable>::KIND;

            fn published_reference(&self) -> &$crate::references::Reference {
                self.$field.published_reference()
            }

            fn of_published(
                reference: $crate::references::Reference,
            ) -> Result<Self, $crate::references::HandleError> {
                <$inner as $crate::published::Publishable>::of_published(reference).map($make)
            }
        }
    };
}

/// Makes a type that holds a [`Reference`](crate::references::Reference) a message, and one that can be published: how it gives the reference, and how it is made of
/// one. For the crates of this library.
#[doc(hidden)]
#[macro_export]
macro_rules! message_of_handle {
    ([$($param:ident: $bound:path),*] $of:ty, $kind:expr, $reference:expr, $open:expr) => {
        impl<$($param: $bound),*> $crate::rkyv::Archive for $of {
            type Archived = $crate::codec::ArchivedHandle;
            type Resolver = u32;

            fn resolve(&self, index: u32, out: $crate::rkyv::Place<Self::Archived>) {
                $crate::rkyv::munge::munge!(let $crate::codec::ArchivedHandle { index: place } = out);
                $crate::rkyv::Archive::resolve(&index, (), place);
            }
        }

        impl<$($param: $bound,)* S> $crate::rkyv::Serialize<S> for $of
        where
            S: $crate::codec::Attach + ?Sized,
        {
            fn serialize(&self, serializer: &mut S) -> Result<u32, S::Error> {
                let reference: fn(&$of) -> &$crate::references::Reference = $reference;
                serializer.attach(reference(self))
            }
        }

        impl<$($param: $bound,)* D> $crate::rkyv::Deserialize<$of, D> for $crate::codec::ArchivedHandle
        where
            D: $crate::codec::Detach + ?Sized,
        {
            fn deserialize(&self, deserializer: &mut D) -> Result<$of, D::Error> {
                let reference = deserializer.detach(self.index.to_native(), $kind)?;
                let open: fn($crate::references::Reference) -> Result<$of, $crate::references::HandleError> = $open;
                open(reference).map_err(|error| deserializer.refuse(error))
            }
        }

        $crate::if_serde! {
            impl<$($param: $bound),*> $crate::serde::Serialize for $of {
                fn serialize<Ser: $crate::serde::Serializer>(&self, to: Ser) -> Result<Ser::Ok, Ser::Error> {
                    let reference: fn(&$of) -> &$crate::references::Reference = $reference;
                    $crate::serde::Serialize::serialize(&$crate::codec::inside::InMessage(reference(self)), to)
                }
            }

            impl<'de, $($param: $bound),*> $crate::serde::Deserialize<'de> for $of {
                fn deserialize<De: $crate::serde::Deserializer<'de>>(from: De) -> Result<Self, De::Error> {
                    let taken: $crate::codec::inside::OutOfMessage<{ $kind.0 }> =
                        $crate::serde::Deserialize::deserialize(from)?;
                    let open: fn($crate::references::Reference) -> Result<$of, $crate::references::HandleError> = $open;
                    open(taken.0).map_err($crate::codec::inside::refuse)
                }
            }
        }

        impl<$($param: $bound),*> $crate::published::Publishable for $of {
            const KIND: $crate::handle::Kind = $kind;

            fn published_reference(&self) -> &$crate::references::Reference {
                let reference: fn(&$of) -> &$crate::references::Reference = $reference;
                reference(self)
            }

            fn of_published(
                reference: $crate::references::Reference,
            ) -> Result<Self, $crate::references::HandleError> {
                let open: fn($crate::references::Reference) -> Result<$of, $crate::references::HandleError> = $open;
                open(reference)
            }
        }
    };
}
