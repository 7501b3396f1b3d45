//! What a host needs to use an array: an NBD client, every management command as a typed call, and the calls that
//! are made of several commands, like *Establish* (D18).
//!
//! Nothing here opens a socket by itself: connections come from a [`Dial`], so the same code runs over Unix sockets, TCP
//! and the simulator's network. Every wait has an end: management calls have a deadline each, and an NBD call may be
//! dropped at any time.
//!
//! The feature `tls` adds encrypted connections: `TlsDial` for management over `https`, `NbdClient::connect_tls` for devices.
//! The feature `cli`, on by default, adds the command `twintrack`, which is written over this library; the library is the same
//! without it, but for `tls`, which the command needs.
//!
//! # Reading and writing a device
//!
//! ```no_run
//! use std::time::Duration;
//! use bytes::Bytes;
//! use twintrack_host::{Dial, Endpoint, NbdClient, NbdError, NbdOptions, TokioDial};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint: Endpoint = "unix:/srv/array/nbd.sock".parse()?;
//! let db = NbdClient::connect(TokioDial.dial(&endpoint).await?, "db", &NbdOptions::default()).await?;
//! let write = db.write(4096, Bytes::from(vec![7; 4096]), false);
//! match tokio::time::timeout(Duration::from_secs(5), write).await {
//!     Ok(Ok(())) => db.flush().await?,
//!     // May or may not be written: the connection broke, or the array was silent.
//!     Ok(Err(NbdError::OutcomeUnknown { .. })) | Err(_) => {}
//!     Ok(Err(error)) => return Err(error.into()),
//! }
//! db.disconnect().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Managing an array
//!
//! ```no_run
//! use twintrack_host::{ArrayClient, ArrayError, TokioDial};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let array = ArrayClient::new(TokioDial, "unix:/srv/array/control.sock".parse()?);
//! match array.device_create("db", 1 << 30, None).await {
//!     Ok(device) => println!("{} is device {}", device.name, device.id),
//!     Err(ArrayError::Refused(refusal)) => println!("no: {refusal}"),
//!     Err(error) if error.is_outcome_unknown() => println!("perhaps: {error}"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Over a network
//!
//! With the feature `tls`; the array's settings say which certificate it shows and where its token is.
//!
//! ```no_run
//! # #[cfg(feature = "tls")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use twintrack_host::{ArrayClient, ClientTls, Dial, NbdClient, NbdOptions, TlsDial, TokioDial};
//!
//! let ca = std::fs::read("ca.crt")?;
//! let token = std::fs::read_to_string("token")?;
//! let dial = TlsDial::new(ClientTls::new(&ca)?);
//! let array = ArrayClient::new(dial, "tcp:array.example:7000".parse()?).with_token(token.trim())?;
//! println!("{}", array.array_show().await?.serial);
//!
//! let tls = ClientTls::with_identity(&ca, &std::fs::read("host.crt")?, &std::fs::read("host.key")?)?;
//! let stream = TokioDial.dial(&"tcp:array.example:10809".parse()?).await?;
//! let db = NbdClient::connect_tls(stream, &tls, "array.example", "db", &NbdOptions::default()).await?;
//! db.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A volume on two arrays
//!
//! A remote pair as one volume: calls go to the array that serves, before and after a failover.
//!
//! ```no_run
//! use twintrack_host::{MultipathOptions, MultipathVolume, NbdPath, TokioDial};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let berlin = NbdPath::new(TokioDial, "tcp:berlin.example:10809".parse()?, "db");
//! let tokyo = NbdPath::new(TokioDial, "tcp:tokyo.example:10809".parse()?, "db-copy");
//! let db = MultipathVolume::new([berlin, tokyo], MultipathOptions::default());
//! db.write(4096, vec![7; 4096].into(), false).await?;
//! db.flush().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Establish
//!
//! ```no_run
//! use twintrack_host::{ArrayClient, GroupMode, Pair, TokioDial, establish};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let array = ArrayClient::new(TokioDial, "unix:/srv/array/control.sock".parse()?);
//! // One instant over both devices; the virtual devices are created if they do not exist.
//! let pairs = [Pair::new("db", "db-monday"), Pair::new("log", "log-monday").offline()];
//! for session in establish(&array, &pairs, GroupMode::Synchronous).await? {
//!     println!("session {} of {}", session.id, session.standard);
//! }
//! # Ok(())
//! # }
//! ```

mod array;
mod commands;
mod dial;
mod establish;
mod exchange;
mod local;
mod multipath;
mod nbd;
mod remote;
#[cfg(feature = "tls")]
mod tls;
mod tls_failure;

pub use array::{ANSWER_BYTES_MAX, ArrayClient, ArrayError, TRACK_BYTES_MAX, TokenError, TrackReader};
pub use dial::{Dial, Socket, TokioDial};
pub use establish::{EstablishError, EstablishStep, Leftover, Pair, establish};
pub use multipath::{MultipathError, MultipathOptions, MultipathVolume, NbdPath};
pub use nbd::{Lost, NbdClient, NbdError, NbdOptions, describe_export, list_exports};
pub use remote::{NewRemote, NewSnapshot};
#[cfg(feature = "tls")]
pub use tls::{ClientTls, ClientTlsError, TlsDial};
pub use tls_failure::TlsFailure;
pub use twintrack_link::manage::{self, GroupMode};
pub use twintrack_link::{Endpoint, EndpointError};
