//! Ends of channels inside messages.
//!
//! An end is archived as its index among the handles of its message. The bounds ask for a serializer that can carry handles, so an
//! end that is serialised anywhere else does not compile.

use mp_shm::rkyv::rend::u32_le;

/// An end of a channel in a message: its index among the message's handles.
#[derive(Clone, Copy, Debug, mp_shm::rkyv::Portable, mp_shm::rkyv::bytecheck::CheckBytes)]
#[rkyv(crate = mp_shm::rkyv)]
#[bytecheck(crate = mp_shm::rkyv::bytecheck)]
#[repr(transparent)]
pub struct ArchivedEnd {
    pub(crate) index: u32_le,
}

/// Makes a type with a member `end: Arc<End>` a message.
macro_rules! endpoint {
    ([$($param:ident)?] $end:ty, $kind:expr, $type_hash:expr, $make:expr) => {
        impl$(<$param>)? mp_shm::rkyv::Archive for $end {
            type Archived = crate::message::ArchivedEnd;
            type Resolver = u32;

            fn resolve(&self, index: u32, out: mp_shm::rkyv::Place<Self::Archived>) {
                mp_shm::rkyv::munge::munge!(let crate::message::ArchivedEnd { index: place } = out);
                mp_shm::rkyv::Archive::resolve(&index, (), place);
            }
        }

        impl<$($param,)? S> mp_shm::rkyv::Serialize<S> for $end
        where
            S: mp_shm::codec::Attach + ?Sized,
        {
            fn serialize(&self, serializer: &mut S) -> Result<u32, S::Error> {
                serializer.attach(self.end.reference())
            }
        }

        impl<$($param: mp_shm::Message,)? D> mp_shm::rkyv::Deserialize<$end, D> for crate::message::ArchivedEnd
        where
            D: mp_shm::codec::Detach + ?Sized,
        {
            fn deserialize(&self, deserializer: &mut D) -> Result<$end, D::Error> {
                let reference = deserializer.detach(self.index.to_native(), $kind)?;
                match crate::end::End::open(reference, $type_hash) {
                    Ok(end) => Ok($make(std::sync::Arc::new(end))),
                    Err(error) => Err(deserializer.refuse(error)),
                }
            }
        }
    };
}

pub(crate) use endpoint;
