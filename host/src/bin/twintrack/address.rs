//! How an array is named: the folder of its daemon, or the endpoint of its management.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use twintrack_host::{Endpoint, EndpointError};

/// The management socket in a daemon's folder.
const CONTROL_SOCKET: &str = "control.sock";
/// The NBD socket in a daemon's folder.
const NBD_SOCKET: &str = "nbd.sock";

/// Names an array. Shown as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The folder of a daemon on this machine.
    Folder(PathBuf),
    /// Where its management listens.
    Endpoint(Endpoint),
    /// The same over TLS.
    Https(Endpoint),
}

/// The text names no array.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing was given.
    #[error("it is empty: write the folder of a daemon, unix:PATH, https://HOST:PORT or tcp:HOST:PORT")]
    Empty,
    /// A URL of another kind.
    #[error(
        "that URL is not understood: write the folder of a daemon, unix:PATH, https://HOST:PORT or tcp:HOST:PORT"
    )]
    Url,
    /// An endpoint, but none that can be.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Address {
    /// Where the array's management is.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Self::Folder(folder) => Endpoint::Unix(folder.join(CONTROL_SOCKET)),
            Self::Endpoint(endpoint) | Self::Https(endpoint) => endpoint.clone(),
        }
    }

    /// Where NBD clients of this machine find a device, if that is beside the management socket.
    pub fn nbd_uri(&self, device: &str) -> Option<String> {
        let Self::Folder(folder) = self else { return None };
        let socket = folder.canonicalize().ok()?.join(NBD_SOCKET);
        socket.exists().then(|| format!("nbd+unix:///{device}?socket={}", escaped(&socket)))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.starts_with("unix:") || text.starts_with("tcp:") {
            return Ok(Self::Endpoint(text.parse()?));
        }
        if let Some(place) = text.strip_prefix("https://") {
            let place = place.strip_suffix('/').unwrap_or(place);
            return format!("tcp:{place}").parse().map(Self::Https).map_err(|_| AddressError::Url);
        }
        if text.contains("://") {
            return Err(AddressError::Url);
        }
        Ok(Self::Folder(PathBuf::from(text)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Endpoint(endpoint) => write!(f, "{endpoint}"),
            Self::Https(endpoint) => write!(f, "https://{}", endpoint.to_string().trim_start_matches("tcp:")),
        }
    }
}

/// A path as part of a URI.
fn escaped(path: &Path) -> String {
    let mut escaped = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_endpoints() {
        let endpoint = |text: &str| text.parse::<Address>().unwrap().endpoint().to_string();
        assert_eq!(endpoint("/srv/a"), "unix:/srv/a/control.sock");
        assert_eq!(endpoint("a:b"), "unix:a:b/control.sock");
        assert_eq!(endpoint("unix:/run/control.sock"), "unix:/run/control.sock");
        assert_eq!(endpoint("tcp:[::1]:7000"), "tcp:[::1]:7000");
        assert_eq!(endpoint("https://[::1]:7000/"), "tcp:[::1]:7000");
        for text in ["", "http://localhost", "https://localhost", "https://h:1/x", "tcp:localhost", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_nbd_socket_is_named_if_it_is_there() {
        let folder = tempfile::Builder::new().prefix("two words").tempdir().unwrap();
        let address = Address::Folder(folder.path().to_owned());
        assert_eq!(address.nbd_uri("db"), None);
        std::fs::write(folder.path().join(NBD_SOCKET), "").unwrap();
        let uri = address.nbd_uri("db").unwrap();
        assert!(uri.starts_with("nbd+unix:///db?socket=/"), "{uri}");
        assert!(uri.contains("two%20words") && uri.ends_with("/nbd.sock"), "{uri}");
    }
}
