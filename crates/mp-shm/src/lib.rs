//! Shared memory for multiproc: sessions, participants, handles, blocks and the message codec.
