//! The file `twintrack.toml`: what it may say, and what that means for an array.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use twintrack_link::manage::WhenFull;
use twintrack_link::{Endpoint, size};

use crate::shell::{Config, PoolConfig, PoolPolicy, Threshold, Token};

/// What is written at the first start, but for the size of the first store.
const TEMPLATE: &str = include_str!("twintrack.toml");

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where hosts connect.
    pub nbd: Nbd,
    /// Where commands are taken.
    pub control: Control,
    /// Other arrays.
    pub link: Link,
    /// The log.
    pub log: Log,
    /// What counts at format.
    pub format: Format,
    /// The pools.
    pub pool: Vec<Pool>,
}

/// Sockets of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nbd {
    /// Where to listen; `None`: on the Unix socket in the array's folder.
    pub listen: Option<Vec<Address>>,
    /// Whether other machines may connect without showing who they are.
    pub insecure: bool,
    /// Encryption over TCP; with it nothing is served without.
    pub tls: Option<NbdTls>,
}

/// Files in PEM format; relative paths are in the array's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NbdTls {
    /// The array's certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whose certificates hosts have to show; `None`: none.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// Sockets for commands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Control {
    /// Where to listen; `None`: on the Unix socket in the array's folder.
    pub listen: Option<Vec<Address>>,
    /// Whether others may send commands over TCP without encryption and without a token.
    pub insecure: bool,
    /// Encryption over TCP; with it nothing is answered without.
    pub tls: Option<ControlTls>,
    /// The file of the token that commands over TCP have to show; created if it is not there.
    pub token_file: Option<PathBuf>,
}

/// Files in PEM format; relative paths are in the array's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlTls {
    /// The array's certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Links to other arrays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Where to listen; `None`: on the Unix socket in the array's folder.
    pub listen: Option<Vec<Address>>,
    /// Whether arrays on other machines need not show who they are, here and where they are dialled.
    pub insecure: bool,
    /// Encryption over TCP, in both directions; with it there is no link without.
    pub tls: Option<LinkTls>,
}

/// Files in PEM format; relative paths are in the array's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkTls {
    /// The array's certificate, for who connects and who is connected to, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whose certificates other arrays have to show.
    pub peer_ca: PathBuf,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(pub Endpoint);

/// The log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Its form.
    pub format: LogFormat,
    /// What is left out.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The least important events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// And what may.
    Warn,
    /// And what happens.
    Info,
    /// And what clients do wrong.
    Debug,
    /// Everything.
    Trace,
}

/// What counts at format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Format {
    /// The track size.
    pub track: Size,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Unique.
    pub name: String,
    /// How its stores are read and written.
    #[serde(default)]
    pub io: StoreIo,
    /// What happens when it has no room for what sessions keep.
    #[serde(default, rename = "when-full")]
    pub when_full: WhenFull,
    /// With less free than this it is among the warnings.
    #[serde(default, rename = "warn-below")]
    pub warn_below: Free,
    /// Its stores.
    #[serde(default)]
    pub store: Vec<Store>,
}

/// How a store is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreIo {
    /// Through the page cache: memory that nobody else needs keeps what was read, and takes in what is written.
    #[default]
    PageCache,
    /// Past it: what hosts keep in memory is not kept here once more.
    Direct,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// A file or a block device. Also the name by which the array knows it.
    pub path: String,
    /// Creates a sparse file of that size if there is none.
    #[serde(default)]
    pub size: Option<Size>,
}

/// A part of a pool: `"10%"`, or a [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Free(pub Threshold);

/// A number of bytes, written `65536`, `"65536"`, `"64 KiB"`, `"64K"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}

impl Default for Format {
    fn default() -> Self {
        Self { track: Size(64 << 10) }
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Not TOML, or not what is expected there.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A socket that others than the owner reach, and that asks nobody who they are.
    #[error(
        "{endpoint} can be reached by other machines: {remedy}, or listen on a Unix socket, or set insecure = true in \
         [{table}] if everyone there may do everything"
    )]
    Exposed {
        /// Where.
        endpoint: Endpoint,
        /// In which table.
        table: &'static str,
        /// What makes it safe.
        remedy: &'static str,
    },
    /// An address stands there twice.
    #[error("{endpoint} is listened on twice: give each its own port")]
    ListenTwice {
        /// Where.
        endpoint: Endpoint,
    },
}

impl Settings {
    /// Reads settings.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text)?;
        let nbd = tcp(&settings.nbd.listen);
        let control = tcp(&settings.control.listen);
        let link = tcp(&settings.link.listen);
        let mut seen = BTreeSet::new();
        let mut all = nbd.iter().chain(&control).chain(&link);
        if let Some(endpoint) = all.find(|endpoint| !seen.insert(**endpoint)) {
            return Err(SettingsError::ListenTwice { endpoint: (*endpoint).clone() });
        }
        let exposed = |endpoints: Vec<&Endpoint>, table, remedy| {
            let exposed = endpoints.into_iter().find(|endpoint| !is_of_this_machine(endpoint));
            exposed.map_or(Ok(()), |endpoint| {
                Err(SettingsError::Exposed { endpoint: endpoint.clone(), table, remedy })
            })
        };
        match &settings.nbd {
            Nbd { insecure: true, .. } | Nbd { tls: Some(NbdTls { client_ca: Some(_), .. }), .. } => {}
            Nbd { tls: Some(_), .. } => {
                let remedy = "set client-ca in [nbd.tls], so that hosts show who they are";
                exposed(nbd, "nbd", remedy)?;
            }
            Nbd { tls: None, .. } => exposed(nbd, "nbd", "set certificate, key and client-ca in [nbd.tls]")?,
        }
        if !settings.control.insecure && settings.control.tls.is_none() {
            exposed(control, "control", "set certificate and key in [control.tls]")?;
        }
        if !settings.link.insecure && settings.link.tls.is_none() {
            exposed(link, "link", "set certificate, key and peer-ca in [link.tls]")?;
        }
        Ok(settings)
    }

    /// Where the token is that commands over TCP have to show; `None`: they need none.
    pub fn token_file(&self, folder: &Path) -> Option<PathBuf> {
        let Control { listen, insecure, token_file, .. } = &self.control;
        let default = || (!insecure).then(|| PathBuf::from(super::TOKEN));
        let wanted = token_file.clone().or_else(default).filter(|_| !tcp(listen).is_empty());
        wanted.map(|path| folder.join(path))
    }

    /// The TCP addresses of hosts, those of commands, and those of other arrays.
    pub(super) fn tcp(&self) -> [Vec<&Endpoint>; 3] {
        [&self.nbd.listen, &self.control.listen, &self.link.listen].map(tcp)
    }

    /// What the array is told; relative paths of sockets are in `folder`.
    pub fn config(&self, folder: &Path, token: Option<Token>) -> Config {
        let pool = |pool: &Pool| PoolConfig {
            name: pool.name.clone(),
            stores: pool.store.iter().map(|store| store.path.clone()).collect(),
            policy: PoolPolicy { when_full: pool.when_full, warn_below: pool.warn_below.0 },
        };
        Config {
            nbd: endpoints(&self.nbd.listen, folder, super::NBD_SOCKET),
            control: endpoints(&self.control.listen, folder, super::CONTROL_SOCKET),
            control_token: token,
            link: endpoints(&self.link.listen, folder, super::LINK_SOCKET),
            pools: self.pool.iter().map(pool).collect(),
            // One that is too large is no track size either.
            track_bytes: u32::try_from(self.format.track.0).unwrap_or(u32::MAX),
        }
    }

    /// The stores by path, with the size of those that may be created.
    pub fn stores(&self) -> BTreeMap<String, Option<u64>> {
        let stores = self.pool.iter().flat_map(|pool| &pool.store);
        stores.map(|store| (store.path.clone(), store.size.map(|size| size.0))).collect()
    }

    /// The stores, by path, that are not to be used through the page cache.
    pub fn direct_stores(&self) -> BTreeSet<String> {
        let direct = self.pool.iter().filter(|pool| pool.io == StoreIo::Direct);
        direct.flat_map(|pool| &pool.store).map(|store| store.path.clone()).collect()
    }
}

fn endpoints(listen: &Option<Vec<Address>>, folder: &Path, default: &str) -> Vec<Endpoint> {
    let Some(addresses) = listen else { return vec![Endpoint::Unix(folder.join(default))] };
    let within = |address: &Address| match &address.0 {
        Endpoint::Unix(path) => Endpoint::Unix(folder.join(path)),
        tcp => tcp.clone(),
    };
    addresses.iter().map(within).collect()
}

fn tcp(listen: &Option<Vec<Address>>) -> Vec<&Endpoint> {
    let all = listen.iter().flatten().map(|Address(endpoint)| endpoint);
    all.filter(|endpoint| matches!(endpoint, Endpoint::Tcp(..))).collect()
}

/// The text of the file at a first start, with one sparse file as store.
pub fn first_settings(store_bytes: u64) -> String {
    TEMPLATE.replace("{size}", &Size(store_bytes).to_string())
}

/// Whether nobody on another machine is there.
pub(super) fn is_of_this_machine(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Unix(_) => true,
        Endpoint::Tcp(host, _) => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Free {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Free;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part like \"10%\" or a size like \"100 GiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Free, E> {
                match text.strip_suffix('%') {
                    Some(part) => match part.trim_end().parse::<u8>() {
                        Ok(part @ 0..=100) => Ok(Free(Threshold::PerCent(part))),
                        _ => Err(E::custom(format_args!("{text:?} is no part: write \"0%\" to \"100%\""))),
                    },
                    None => text.parse().map(|Size(bytes)| Free(Threshold::Bytes(bytes))).map_err(E::custom),
                }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// The text names no size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no size: {source}")]
pub struct SizeError {
    text: String,
    source: size::SizeError,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        size::parse(text).map(Self).map_err(|source| SizeError { text: text.to_owned(), source })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&size::exact(self.0))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"100 GiB\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                let negative = |_| E::invalid_value(de::Unexpected::Signed(number), &self);
                u64::try_from(number).map(Size).map_err(negative)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
                Ok(Size(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
