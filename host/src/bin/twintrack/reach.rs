//! How the array is reached: its address, whom to trust, and what to show.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use twintrack_host::{ArrayClient, ClientTls, Dial, Endpoint, Socket, TlsDial, TokioDial};

use crate::address::Address;
use crate::failure::Failure;

const ARRAY_VARIABLE: &str = "TWINTRACK_ARRAY";
const CA_VARIABLE: &str = "TWINTRACK_CA";
const TOKEN_VARIABLE: &str = "TWINTRACK_TOKEN_FILE";

/// The options that name the array.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// The array: its daemon's folder, unix:PATH, https://HOST:PORT or tcp:HOST:PORT
    #[arg(short = 'a', long, global = true, env = ARRAY_VARIABLE, value_name = "ARRAY", value_hint = ValueHint::DirPath)]
    array: Option<Address>,
    /// The CA that signed the certificate of an array named by https
    #[arg(long, global = true, env = CA_VARIABLE, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// The token of an array named by https or tcp
    #[arg(
        long,
        global = true,
        env = TOKEN_VARIABLE,
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    token_file: Option<PathBuf>,
}

impl Reach {
    /// The array's address, and a client for it.
    pub fn client(&self) -> Result<(Address, ArrayClient<Dialer>), Failure> {
        let address = self.array.clone().ok_or_else(|| {
            Failure::Usage(format!("no array is named: use `-a DIR`, or set {ARRAY_VARIABLE}"))
        })?;
        let dialer = match &address {
            Address::Https(_) => Dialer::Tls(self.tls()?),
            Address::Folder(_) | Address::Endpoint(_) => Dialer::Plain,
        };
        let endpoint = address.endpoint();
        // A local socket asks for none, so none is shown to it.
        let token_file = self.token_file.as_deref().filter(|_| matches!(endpoint, Endpoint::Tcp(..)));
        let client = ArrayClient::new(dialer, endpoint);
        let client = match token_file {
            None => client,
            Some(path) => {
                let text = String::from_utf8_lossy(&read(path)?).into_owned();
                client.with_token(text.trim()).map_err(|error| unusable(path, &error))?
            }
        };
        Ok((address, client))
    }

    fn tls(&self) -> Result<TlsDial, Failure> {
        let path = self.ca.as_deref().ok_or_else(|| {
            Failure::Usage(format!("whom to trust is not named: use `--ca FILE`, or set {CA_VARIABLE}"))
        })?;
        let tls = ClientTls::new(&read(path)?).map_err(|error| unusable(path, &error))?;
        Ok(TlsDial::new(tls))
    }

    /// The options once more, for a command to type; without those that the environment names.
    pub fn options(&self) -> String {
        let array = self.array.as_ref().map(|address| ("-a", ARRAY_VARIABLE, address.to_string()));
        let path = |path: &PathBuf| path.display().to_string();
        let ca = self.ca.as_ref().map(|ca| ("--ca", CA_VARIABLE, path(ca)));
        let token = self.token_file.as_ref().map(|file| ("--token-file", TOKEN_VARIABLE, path(file)));
        let mut options = String::new();
        for (option, variable, text) in [array, ca, token].into_iter().flatten() {
            if std::env::var(variable).is_ok_and(|named| named == text) {
                continue;
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@,".contains(c);
            if text.chars().all(plain) {
                options += &format!(" {option} {text}");
            } else {
                options += &format!(" {option} '{}'", text.replace('\'', r"'\''"));
            }
        }
        options
    }
}

/// Connections, encrypted or not.
#[derive(Debug, Clone)]
pub enum Dialer {
    /// As they are.
    Plain,
    /// Over TLS.
    Tls(TlsDial),
}

impl Dial for Dialer {
    type Stream = Socket;

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<Socket> {
        match self {
            Self::Plain => TokioDial.dial(endpoint).await,
            Self::Tls(dial) => dial.dial(endpoint).await,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, reason: &dyn std::error::Error) -> Failure {
    Failure::Usage(format!("{} cannot be used: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(array: &str) -> Reach {
        Reach { array: Some(array.parse().unwrap()), ca: None, token_file: None }
    }

    #[test]
    fn options_can_be_typed() {
        assert_eq!(reach("/srv/a").options(), " -a /srv/a");
        assert_eq!(reach("it's").options(), r" -a 'it'\''s'");
        let over_tls = Reach {
            ca: Some("ca.pem".into()),
            token_file: Some("my token".into()),
            ..reach("https://array:7000")
        };
        assert_eq!(over_tls.options(), " -a https://array:7000 --ca ca.pem --token-file 'my token'");
    }
}
