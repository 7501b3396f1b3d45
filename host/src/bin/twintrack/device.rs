//! `device`: create, look at and change devices.

use clap::Subcommand;
use twintrack_core::{CopyId, DeviceId, SessionId};
use twintrack_host::manage::{DeviceInfo, DeviceInfoKind};

use crate::Context;
use crate::advice::Advice;
use crate::failure::Failure;
use crate::table::{Side, Table};
use twintrack_link::size;

/// Sessions that a row of the table names.
const SHOWN_MAX: usize = 3;

/// Commands on devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Creates a standard device of SIZE, or a virtual device
    #[command(
        override_usage = "twintrack device create NAME SIZE [--pool POOL]\n       twintrack device create NAME --virtual"
    )]
    Create {
        /// Its name, and its export's: up to 64 letters, digits, '-', '_' and '.'
        name: String,
        /// A multiple of 512 bytes up to 16T; it takes space only where it is written
        #[arg(value_parser = size::parse, required_unless_present = "is_virtual")]
        size: Option<u64>,
        /// Where it takes its space; the first pool if none is named
        #[arg(long)]
        pool: Option<String>,
        /// Without data of its own: it shows a session, once one is related to it
        #[arg(long = "virtual", conflicts_with_all = ["size", "pool"])]
        is_virtual: bool,
    },
    /// Lists all devices
    List,
    /// Shows one device
    Show {
        /// The device
        name: String,
    },
    /// Deletes a device that no session uses, and its data
    Delete {
        /// The device
        name: String,
    },
    /// Gives a device another name
    Rename {
        /// The device
        name: String,
        /// Its new name
        to: String,
    },
    /// Grows a standard device; what is added reads as zeros
    Resize {
        /// The device
        name: String,
        /// Its new size, not less than it is
        #[arg(value_parser = size::parse)]
        size: u64,
    },
    /// Lets hosts use a device
    Online {
        /// The device
        name: String,
    },
    /// Keeps a device to become the secondary of a pair: hosts use it only once it has been copied to
    Reserve {
        /// The device
        name: String,
    },
    /// Lets hosts use a device that was reserved
    Unreserve {
        /// The device
        name: String,
    },
    /// Keeps hosts off a device: they get errors until it is online
    Offline {
        /// The device
        name: String,
    },
}

impl DeviceCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let of = |command, things, states| Advice::new(command, &[things], &[states]);
        match self {
            Self::Create { .. } => of("device create", "pool list", "device list"),
            Self::List => of("device list", "device list", "device list"),
            Self::Show { .. } => of("device show", "device list", "device list"),
            Self::Delete { .. } => of("device delete", "device list", "session list"),
            Self::Rename { .. } => of("device rename", "device list", "device list"),
            Self::Resize { .. } => of("device resize", "device list", "device list"),
            Self::Online { .. } => of("device online", "device list", "device list"),
            Self::Reserve { .. } => of("device reserve", "device list", "device list"),
            Self::Unreserve { .. } => of("device unreserve", "device list", "device list"),
            Self::Offline { .. } => of("device offline", "device list", "device list"),
        }
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        let changed = match self {
            Self::Create { name, size: Some(size_bytes), pool, .. } => {
                array.device_create(&name, size_bytes, pool.as_deref()).await?
            }
            Self::Create { name, size: None, .. } => array.device_create_virtual(&name).await?,
            Self::List => {
                let devices = array.device_list().await?;
                return context.output.show(&devices, || table(&devices).to_string());
            }
            Self::Show { name } => {
                let device = array.device_show(&name).await?;
                let nbd_uri = context.address.nbd_uri(&device.name);
                return context.output.show(&device, || facts(&device, nbd_uri).to_string());
            }
            Self::Delete { name } => {
                array.device_delete(&name).await?;
                return context.output.done();
            }
            Self::Rename { name, to } => array.device_rename(&name, &to).await?,
            Self::Resize { name, size } => array.device_resize(&name, size).await?,
            Self::Online { name } => array.device_online(&name, true).await?,
            Self::Reserve { name } => array.device_reserve(&name, true).await?,
            Self::Unreserve { name } => array.device_reserve(&name, false).await?,
            Self::Offline { name } => array.device_online(&name, false).await?,
        };
        context.output.show(&changed, || table(std::slice::from_ref(&changed)).to_string())
    }
}

pub fn table(devices: &[DeviceInfo]) -> Table<6> {
    let mut table = Table::new([
        ("NAME", Side::Left),
        ("KIND", Side::Left),
        ("SIZE", Side::Right),
        ("POOL", Side::Left),
        ("SESSIONS", Side::Left),
        ("HOSTS", Side::Left),
    ]);
    for device in devices {
        let (kind, pool, sessions) = match &device.kind {
            DeviceInfoKind::Standard { pool, sessions } => ("standard", pool.as_str(), sessions.to_string()),
            DeviceInfoKind::Virtual { shows } => ("virtual", "-", shown(shows, SHOWN_MAX)),
        };
        table.row([
            device.name.clone(),
            kind.to_owned(),
            size_of(device),
            pool.to_owned(),
            sessions,
            hosts(device).to_owned(),
        ]);
    }
    table
}

fn facts(device: &DeviceInfo, nbd_uri: Option<String>) -> Table<2> {
    let mut facts = Table::facts();
    facts.fact("name", &device.name);
    facts.fact("id", DeviceId(device.id).to_string());
    match &device.kind {
        DeviceInfoKind::Standard { pool, sessions } => {
            facts.fact("kind", "standard");
            facts.fact("pool", pool);
            facts.fact("sessions", sessions.to_string());
            facts.fact("pairs", pairs(device));
        }
        DeviceInfoKind::Virtual { shows } => {
            facts.fact("kind", "virtual");
            facts.fact("shows", shown(shows, usize::MAX));
        }
    }
    facts.fact("size", format!("{} ({} bytes)", size_of(device), device.size_bytes));
    facts.fact("hosts", hosts(device));
    if let Some(uri) = nbd_uri {
        facts.fact("nbd", uri);
    }
    facts
}

/// The pairs and other copies that a standard device is in, as `pair list` has them (C13).
fn pairs(device: &DeviceInfo) -> String {
    if device.copies.is_empty() {
        return "simplex".to_owned();
    }
    let named: Vec<_> = device.copies.iter().map(|copy| CopyId(*copy).to_string()).collect();
    named.join(", ")
}

/// The sessions of a virtual device, so many at most by name.
fn shown(sessions: &[u32], most: usize) -> String {
    if sessions.is_empty() {
        return "-".to_owned();
    }
    let named: Vec<_> = sessions.iter().take(most).map(|id| SessionId(*id).to_string()).collect();
    match sessions.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// A virtual device that was never related has none.
fn size_of(device: &DeviceInfo) -> String {
    if device.size_bytes == 0 { "-".to_owned() } else { size::show(device.size_bytes) }
}

fn hosts(device: &DeviceInfo) -> &'static str {
    match (device.online, device.reserved) {
        (false, _) => "offline",
        (true, true) => "reserved",
        (true, false) => "online",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> [DeviceInfo; 4] {
        let device = |id, name: &str, size_bytes, kind, online| DeviceInfo {
            id,
            name: name.to_owned(),
            size_bytes,
            kind,
            online,
            reserved: false,
            copies: Vec::new(),
        };
        let standard = DeviceInfoKind::Standard { pool: "main".to_owned(), sessions: 2 };
        [
            device(1, "db", 10 << 30, standard, true),
            device(2, "db-monday", 10 << 30, DeviceInfoKind::Virtual { shows: vec![4] }, false),
            device(3, "spare", 0, DeviceInfoKind::Virtual { shows: Vec::new() }, true),
            device(4, "parts", 5 << 20, DeviceInfoKind::Virtual { shows: (5..10).collect() }, true),
        ]
    }

    #[test]
    fn devices_are_shown_in_a_table() {
        insta::assert_snapshot!(table(&devices()), @r#"
        NAME       KIND        SIZE  POOL  SESSIONS                        HOSTS
        db         standard  10 GiB  main  2                               online
        db-monday  virtual   10 GiB  -     ses-4                           offline
        spare      virtual        -  -     -                               online
        parts      virtual    5 MiB  -     ses-5, ses-6, ses-7 and 2 more  online
        "#);
    }

    #[test]
    fn one_device_is_shown_exactly() {
        let [mut db, monday, spare, parts] = devices();
        db.copies = vec![7, 9];
        let uri = "nbd+unix:///db?socket=/srv/a/nbd.sock".to_owned();
        insta::assert_snapshot!(facts(&db, Some(uri)), @r#"
        name      db
        id        dev-1
        kind      standard
        pool      main
        sessions  2
        pairs     copy-7, copy-9
        size      10 GiB (10737418240 bytes)
        hosts     online
        nbd       nbd+unix:///db?socket=/srv/a/nbd.sock
        "#);
        insta::assert_snapshot!(facts(&monday, None), @r#"
        name   db-monday
        id     dev-2
        kind   virtual
        shows  ses-4
        size   10 GiB (10737418240 bytes)
        hosts  offline
        "#);
        insta::assert_snapshot!(facts(&spare, None), @r#"
        name   spare
        id     dev-3
        kind   virtual
        shows  -
        size   - (0 bytes)
        hosts  online
        "#);
        insta::assert_snapshot!(facts(&parts, None), @r#"
        name   parts
        id     dev-4
        kind   virtual
        shows  ses-5, ses-6, ses-7, ses-8, ses-9
        size   5 MiB (5242880 bytes)
        hosts  online
        "#);
    }
}
