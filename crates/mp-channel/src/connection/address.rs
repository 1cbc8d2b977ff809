//! Where a listener can be reached, and how that is written.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// The most bytes of a path or an abstract name: what fits the system's address.
pub const NAME_BYTES_MAX: usize = 107;

/// Where a [`Listener`](super::Listener) can be reached.
///
/// | written | also | means | to Python |
/// |---|---|---|---|
/// | `unix:/run/app/socket` | `/run/app/socket`, `./socket` | a socket file | `'/run/app/socket'` |
/// | `abstract:app` | `@app` | a name in Linux's abstract namespace: no file, and anybody in the network namespace can connect | `'\0app'` |
/// | `tcp:localhost:5000` | `localhost:5000` | TCP; port 0 is one that is free | `('localhost', 5000)` |
/// | `tcp:[::1]:5000` | `[::1]:5000` | TCP over IPv6 | |
///
/// It is displayed in the first form. A path that is not UTF-8 is displayed with replacements, so that it cannot be parsed back.
///
/// # Examples
/// ```
/// use mp_channel::connection::Address;
///
/// let address: Address = "localhost:5000".parse()?;
/// assert_eq!(address, Address::Tcp { host: "localhost".to_owned(), port: 5000 });
/// assert_eq!(address.to_string(), "tcp:localhost:5000");
/// assert_eq!("@app".parse::<Address>()?.to_string(), "abstract:app");
/// assert_eq!("/run/app".parse::<Address>()?, Address::Unix("/run/app".into()));
/// # Ok::<(), mp_channel::connection::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket file, of 1 to 107 bytes without NUL. Who may connect is up to the permissions of the file and of its directory.
    Unix(PathBuf),
    /// A name in the abstract namespace, of 1 to 107 bytes of any kind.
    Abstract(Vec<u8>),
    /// A TCP port.
    Tcp {
        /// A host name or an address, IPv6 without brackets.
        host: String,
        /// The port; 0 lets a listener take any that is free.
        port: u16,
    },
}

/// A text or a value is no address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// It is none of the forms.
    Form(String),
    /// The path or name is empty.
    Empty,
    /// The path or name has that many bytes, more than [`NAME_BYTES_MAX`].
    TooLong(usize),
    /// A path has a NUL byte in it.
    Nul,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => {
                write!(f, "reading an address: `{text}` is none of unix:PATH, abstract:NAME, tcp:HOST:PORT")
            }
            Self::Empty => f.write_str("reading an address: the name is empty"),
            Self::TooLong(len) => {
                write!(f, "reading an address: a name has {len} bytes, more than {NAME_BYTES_MAX}")
            }
            Self::Nul => f.write_str("reading an address: a path has a NUL byte in it"),
        }
    }
}

impl std::error::Error for AddressError {}

impl Address {
    /// Whether the system can take it.
    ///
    /// # Errors
    /// [`AddressError`]: a name that is empty, too long, or has a NUL byte in it.
    pub fn check(&self) -> Result<(), AddressError> {
        let name = match self {
            Self::Unix(path) => path.as_os_str().as_bytes(),
            Self::Abstract(name) => name,
            Self::Tcp { host, .. } => return if host.is_empty() { Err(AddressError::Empty) } else { Ok(()) },
        };
        match name.len() {
            0 => Err(AddressError::Empty),
            1..=NAME_BYTES_MAX if matches!(self, Self::Unix(_)) && name.contains(&0) => {
                Err(AddressError::Nul)
            }
            1..=NAME_BYTES_MAX => Ok(()),
            len => Err(AddressError::TooLong(len)),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let address = if let Some(path) = text.strip_prefix("unix:") {
            Self::Unix(path.into())
        } else if let Some(name) = text.strip_prefix("abstract:").or_else(|| text.strip_prefix('@')) {
            Self::Abstract(name.into())
        } else if let Some(rest) = text.strip_prefix("tcp:") {
            tcp(rest).ok_or_else(|| AddressError::Form(text.to_owned()))?
        } else if text.contains('/') {
            Self::Unix(text.into())
        } else {
            tcp(text).ok_or_else(|| AddressError::Form(text.to_owned()))?
        };
        address.check()?;
        Ok(address)
    }
}

fn tcp(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    // More than one colon only in brackets, so that nobody takes the end of an IPv6 address for the port.
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host,
        None if host.contains(':') => return None,
        None => host,
    };
    // `parse` alone would take "+5".
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    Some(Address::Tcp { host: host.to_owned(), port: port.parse().ok().filter(|_| is_number)? })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "abstract:{}", String::from_utf8_lossy(name)),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_displayed() {
        for (text, displayed) in [
            ("/tmp/x", "unix:/tmp/x"),
            ("./x", "unix:./x"),
            ("unix:x", "unix:x"),
            ("unix:@x", "unix:@x"),
            ("@x y", "abstract:x y"),
            ("abstract:@x", "abstract:@x"),
            ("localhost:0", "tcp:localhost:0"),
            ("tcp:10.0.0.1:65535", "tcp:10.0.0.1:65535"),
            ("[::1]:80", "tcp:[::1]:80"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), displayed);
            assert_eq!(displayed.parse::<Address>().unwrap(), address, "it can be read back");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "x", "host:", "host:65536", "host:-1", "host:+1", "::1:80", "tcp:/x", "host: 5"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Form(text.to_owned())));
        }
        for text in ["unix:", "@", "abstract:", ":80", "tcp:[]:80"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Empty), "{text}");
        }
        assert_eq!("/a\0b".parse::<Address>(), Err(AddressError::Nul));
        assert_eq!(format!("/{}", "x".repeat(107)).parse::<Address>(), Err(AddressError::TooLong(108)));
        assert!(format!("/{}", "x".repeat(106)).parse::<Address>().is_ok());
    }
}
