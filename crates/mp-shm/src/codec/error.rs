//! What can go wrong between a value and its bytes.

use crate::error::SessionError;
use crate::references::HandleError;
use std::fmt;

/// A value could not be made into a message.
#[derive(Debug)]
pub enum EncodeError {
    /// No memory in the session, or no part in it.
    Session(SessionError),
    /// A handle in the value cannot travel in this message.
    Handle(HandleError),
    /// The type's own serialisation failed; the text is its error.
    Value(String),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(error) => write!(f, "encoding a message: {error}"),
            Self::Handle(error) => write!(f, "encoding a message: {error}"),
            Self::Value(error) => write!(f, "encoding a message: {error}"),
        }
    }
}

impl std::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(error) => Some(error),
            Self::Handle(error) => Some(error),
            Self::Value(_) => None,
        }
    }
}

/// Bytes could not be made into a value.
#[derive(Debug)]
pub enum DecodeError {
    /// The bytes are not a valid archive of the type.
    Invalid(String),
    /// A handle in the message could not be taken.
    Handle(HandleError),
    /// The type's own deserialisation failed; the text is its error.
    Value(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => write!(f, "decoding a message: not a valid archive: {error}"),
            Self::Handle(error) => write!(f, "decoding a message: {error}"),
            Self::Value(error) => write!(f, "decoding a message: {error}"),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handle(error) => Some(error),
            Self::Invalid(_) | Self::Value(_) => None,
        }
    }
}
