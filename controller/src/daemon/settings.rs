//! The file `twintrack.toml`: what it may say, and what that means for an array.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use twintrack_link::manage::WhenFull;
use twintrack_link::{Endpoint, size};

use crate::shell::{Config, PoolConfig, PoolPolicy, Threshold};

/// What is written at the first start, but for the size of the first store.
const TEMPLATE: &str = include_str!("twintrack.toml");

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where hosts connect.
    pub nbd: Door,
    /// Where commands are taken.
    pub control: Door,
    /// The log.
    pub log: Log,
    /// What counts at format.
    pub format: Format,
    /// The pools.
    pub pool: Vec<Pool>,
}

/// Sockets of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Door {
    /// Where to listen; `None`: on the Unix socket in the array's folder.
    pub listen: Option<Vec<Address>>,
    /// Whether other machines may connect, unencrypted and unauthenticated.
    pub insecure: bool,
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
    /// A socket that others than the owner reach.
    #[error(
        "{endpoint} can be reached by {by}, and there is neither encryption nor authentication yet: listen on a Unix \
         socket, or set insecure = true in [{table}] if everyone there may do everything"
    )]
    Exposed {
        /// Where.
        endpoint: Endpoint,
        /// In which table.
        table: &'static str,
        /// Whom.
        by: &'static str,
    },
}

impl Settings {
    /// Reads settings.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text)?;
        for (table, door) in [("nbd", &settings.nbd), ("control", &settings.control)] {
            for Address(endpoint) in door.listen.iter().flatten().filter(|_| !door.insecure) {
                let by = match (endpoint, table) {
                    (Endpoint::Unix(_), _) => continue,
                    (Endpoint::Tcp(host, _), "nbd") if is_loopback(host) => continue,
                    // A page in a browser can send a command there, though not read the answer.
                    (Endpoint::Tcp(host, _), _) if is_loopback(host) => {
                        "all users and browsers of this machine"
                    }
                    (Endpoint::Tcp(..), _) => "other machines",
                };
                return Err(SettingsError::Exposed { endpoint: endpoint.clone(), table, by });
            }
        }
        Ok(settings)
    }

    /// What the array is told; relative paths of sockets are in `folder`.
    pub fn config(&self, folder: &Path) -> Config {
        let pool = |pool: &Pool| PoolConfig {
            name: pool.name.clone(),
            stores: pool.store.iter().map(|store| store.path.clone()).collect(),
            policy: PoolPolicy { when_full: pool.when_full, warn_below: pool.warn_below.0 },
        };
        Config {
            nbd: self.nbd.endpoints(folder, super::NBD_SOCKET),
            control: self.control.endpoints(folder, super::CONTROL_SOCKET),
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
}

impl Door {
    fn endpoints(&self, folder: &Path, default: &str) -> Vec<Endpoint> {
        match &self.listen {
            None => vec![Endpoint::Unix(folder.join(default))],
            Some(addresses) => {
                let within = |address: &Address| match &address.0 {
                    Endpoint::Unix(path) => Endpoint::Unix(folder.join(path)),
                    tcp => tcp.clone(),
                };
                addresses.iter().map(within).collect()
            }
        }
    }
}

/// The text of the file at a first start, with one sparse file as store.
pub fn first_settings(store_bytes: u64) -> String {
    TEMPLATE.replace("{size}", &Size(store_bytes).to_string())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Settings::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_commented_out_is_the_default() {
        let first = first_settings(100 << 30);
        assert!(first.contains("size = \"100 GiB\""));
        let plain = Settings::parse(&first).unwrap();
        let store = Store { path: "store-0".to_owned(), size: Some(Size(100 << 30)) };
        let pool = Pool {
            name: "default".to_owned(),
            when_full: WhenFull::FailSessions,
            warn_below: Free(Threshold::PerCent(10)),
            store: vec![store],
        };
        assert_eq!(plain, Settings { pool: vec![pool], ..Settings::default() });

        let spelled_out: String = first
            .lines()
            .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let spelled_out = Settings::parse(&spelled_out).unwrap();
        assert!(spelled_out.nbd.listen.is_some());
        assert_eq!((spelled_out.log, spelled_out.format), (plain.log, plain.format));
        let folder = Path::new("/array");
        assert_eq!(spelled_out.config(folder), plain.config(folder));
    }

    #[test]
    fn errors_say_where_and_what() {
        let text = error("[nbd]\nlisten = [\"unix:a.sock\"]\nport = 10809\n");
        assert!(text.contains("line 3") && text.contains("unknown field `port`"), "{text}");
        let text = error("[nbd]\nlisten = [\"10809\"]\n");
        assert!(text.contains("line 2") && text.contains("unix:PATH or tcp:HOST:PORT"), "{text}");
        let text = error("[[pool]]\nname = \"a\"\n[[pool.store]]\npath = \"b\"\nsize = \"10 GB\"\n");
        assert!(text.contains("line 5") && text.contains("\"10 GB\" is no size"), "{text}");
        let text = error("[format]\ntrack = -1\n");
        assert!(text.contains("line 2"), "{text}");
        let text = error("[[pool]]\nname = \"a\"\nwhen-full = \"wait\"\n");
        assert!(text.contains("line 3") && text.contains("`refuse-writes`"), "{text}");
        for free in ["101%", "-1%", "x%", "%", "10 GB"] {
            let text = error(&format!("[[pool]]\nname = \"a\"\nwarn-below = \"{free}\"\n"));
            assert!(text.contains("line 3") && text.contains(&format!("\"{free}\" is no")), "{text}");
        }
    }

    #[test]
    fn what_a_pool_does_when_it_is_full() {
        let text = "[[pool]]\nname = \"a\"\nwhen-full = \"refuse-writes\"\nwarn-below = \"5 GiB\"\n[[pool]]\nname = \"b\"\nwarn-below = \"25%\"\n";
        let config = Settings::parse(text).unwrap().config(Path::new("/array"));
        let policies: Vec<_> = config.pools.iter().map(|pool| pool.policy).collect();
        let (when_full, warn_below) = (WhenFull::RefuseWrites, Threshold::Bytes(5 << 30));
        let second = PoolPolicy { warn_below: Threshold::PerCent(25), ..PoolPolicy::default() };
        assert_eq!(policies, [PoolPolicy { when_full, warn_below }, second]);
    }

    #[test]
    fn others_are_kept_out() {
        for host in ["127.0.0.1", "localhost", "[::1]"] {
            assert!(Settings::parse(&format!("nbd.listen = [\"tcp:{host}:10809\"]")).is_ok());
        }
        for (table, host) in
            [("nbd", "0.0.0.0"), ("nbd", "[::]"), ("control", "example.org"), ("control", "127.0.0.1")]
        {
            let text = error(&format!("{table}.listen = [\"tcp:{host}:10809\"]"));
            assert!(text.contains(&format!("insecure = true in [{table}]")), "{text}");
            let trusted = format!("{table}.listen = [\"tcp:{host}:10809\"]\n{table}.insecure = true");
            assert!(Settings::parse(&trusted).is_ok());
        }
    }
}
