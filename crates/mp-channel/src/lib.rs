//! Bounded multi-producer multi-consumer channels between processes that survive a kill at any instruction.
pub mod ring;
