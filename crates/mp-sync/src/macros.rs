//! The shapes that all primitives share: markers, handles, names.

/// Makes a primitive fit for shared memory, given the robust part of it. Its layout is `repr(C)`.
macro_rules! shared_primitive {
    ([$($param:tt)*] $type:ty, $name:literal, $raw:ident: $raw_type:ty $(, $data:ty)?) => {
        // SAFETY: what the raw protocol changes is atomic, what it guards is reached by its rules alone.
        unsafe impl<$($param)*> Sync for $type {}

        // SAFETY: `repr(C)`; the raw protocol is valid for every bit pattern, and so is what it guards; nothing is to be dropped.
        unsafe impl<$($param)*> mp_shm::ShmSafe for $type {
            const LAYOUT: u64 = {
                let hash = mp_shm::safe::layout($name, size_of::<Self>(), align_of::<Self>());
                let hash = mp_shm::safe::mix(hash, <$raw_type as mp_shm::ShmSafe>::LAYOUT);
                $(let hash = mp_shm::safe::mix(hash, <$data as mp_shm::ShmSafe>::LAYOUT);)?
                hash
            };
            const PADDED: bool = true;

            fn robust_words(&self, visit: &mut dyn FnMut(&mp_shm::safe::RobustWord)) {
                mp_shm::ShmSafe::robust_words(&self.$raw, visit);
            }
        }
    };
}

/// The name of a primitive, kept by its mutex.
macro_rules! named {
    () => {
        /// What it is called in reports; empty unless [`set_name`](Self::set_name) was called.
        #[must_use]
        pub fn name(&self) -> String {
            self.mutex().name()
        }

        /// Names it for reports, by at most 24 bytes; what is longer is cut.
        pub fn set_name(&self, name: &str) {
            self.mutex().set_name(name);
        }
    };
}

pub(crate) use {named, shared_primitive};
