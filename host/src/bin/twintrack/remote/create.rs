//! `remote create`: two volumes on two arrays become a pair.

use std::fmt;

use clap::Args;
use twintrack_host::manage::{NewDevice, PairHalf, PairMode, PairPolicy, RemoteInfo};
use twintrack_host::{ArrayError, NewRemote};

use crate::Context;
use crate::args::{self, WordError};
use crate::failure::Failure;
use crate::output::Waiting;
use twintrack_link::size;

/// What makes a pair.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The source volume: DEVICE on this array, DEVICE@LINK on the other one
    #[arg(value_name = "R1", value_parser = volume)]
    r1: Volume,
    /// The destination volume, likewise; one of the two is on this array
    #[arg(value_name = "R2", value_parser = volume)]
    r2: Volume,
    /// How it is mirrored: a host's write waits for both arrays, or is copied in the background
    #[arg(long, default_value = "synchronous", value_parser = args::mode)]
    mode: PairMode,
    /// Whose content both get; r1, unless r1 alone is made
    #[arg(long, value_parser = args::half)]
    from: Option<PairHalf>,
    /// Makes the source volume
    #[arg(long)]
    create_r1: bool,
    /// Makes the destination volume
    #[arg(long)]
    create_r2: bool,
    /// Size of the volumes that are made; that of the volume on this array, if there is one
    #[arg(long, value_parser = size::parse)]
    size: Option<u64>,
    /// Pool of a source volume that is made; the first one if none is named
    #[arg(long, value_name = "POOL", requires = "create_r1")]
    pool_r1: Option<String>,
    /// Pool of a destination volume that is made
    #[arg(long, value_name = "POOL", requires = "create_r2")]
    pool_r2: Option<String>,
    /// Its consistency group: pairs of a group are suspended and fail over together
    #[arg(long)]
    group: Option<String>,
    /// What happens when a write cannot reach the other array: hosts go on, or get errors until a person decides
    #[arg(long, default_value = "continue", value_parser = args::policy)]
    policy: PairPolicy,
    /// Asks again what became of a call whose outcome was not known, or does it
    #[arg(long, value_name = "NUMBER")]
    request: Option<u64>,
}

/// A volume: here, or behind a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    device: String,
    link: Option<String>,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.link {
            Some(link) => write!(f, "{}@{link}", self.device),
            None => write!(f, "{}", self.device),
        }
    }
}

/// `DEVICE`, `DEVICE@` (both here) or `DEVICE@LINK`.
pub fn volume(text: &str) -> Result<Volume, WordError> {
    let (device, link) = text.split_once('@').unwrap_or((text, ""));
    if device.is_empty() || link.contains('@') {
        return Err(WordError::Volume);
    }
    let link = Some(link.to_owned()).filter(|link| !link.is_empty());
    Ok(Volume { device: device.to_owned(), link })
}

/// Makes the pair.
pub async fn run(context: &Context, args: CreateArgs) -> Result<RemoteInfo, Failure> {
    let (half, here, there, peer) = sides(&args)?;
    let (created_here, created_there) = match half {
        PairHalf::R1 => ((args.create_r1, &args.pool_r1), (args.create_r2, &args.pool_r2)),
        PairHalf::R2 => ((args.create_r2, &args.pool_r2), (args.create_r1, &args.pool_r1)),
    };
    if args.size.is_some() && !created_here.0 && !created_there.0 {
        return Err(Failure::Usage(
            "--size is for a volume that is made: add --create-r1 or --create-r2".into(),
        ));
    }
    let size_bytes = match args.size {
        _ if !created_here.0 && !created_there.0 => 0,
        Some(size_bytes) => {
            if !created_here.0 {
                check_size(context, &here.device, size_bytes).await?;
            }
            size_bytes
        }
        None if created_here.0 => {
            return Err(Failure::Usage(format!("say how large {} is to be: --size", here.device)));
        }
        None => context.array.device_show(&here.device).await?.size_bytes,
    };
    let volume =
        |(made, pool): (bool, &Option<String>)| made.then(|| NewDevice { pool: pool.clone(), size_bytes });
    let by_default = if args.create_r1 && !args.create_r2 { PairHalf::R2 } else { PairHalf::R1 };
    let request = match args.request {
        Some(request) => request,
        None => random()?,
    };
    let new = NewRemote {
        request,
        half,
        from: args.from.unwrap_or(by_default),
        create_local: volume(created_here),
        create_peer: volume(created_there),
        mode: args.mode,
        policy: args.policy,
        group: args.group.clone(),
        ..NewRemote::new(request, &here.device, peer, &there.device)
    };
    let waiting = Waiting::new(format!("making the pair of {} and {}", args.r1, args.r2));
    let made = context.array.remote_create(&new).await;
    drop(waiting);
    made.map_err(
        |cause: ArrayError| {
            if cause.is_outcome_unknown() { Failure::Create { cause, request } } else { cause.into() }
        },
    )
}

/// Which half is here, the volume here, the one there, and the link.
fn sides(args: &CreateArgs) -> Result<(PairHalf, &Volume, &Volume, &str), Failure> {
    match (&args.r1.link, &args.r2.link) {
        (None, Some(link)) => Ok((PairHalf::R1, &args.r1, &args.r2, link)),
        (Some(link), None) => Ok((PairHalf::R2, &args.r2, &args.r1, link)),
        (None, None) => Err(Failure::Usage(
            "both volumes are on this array: write the one on the other array as DEVICE@LINK".to_owned(),
        )),
        (Some(_), Some(_)) => Err(Failure::Usage(
            "both volumes are on other arrays: ask one that has one of them, and write that as DEVICE"
                .to_owned(),
        )),
    }
}

async fn check_size(context: &Context, device: &str, size_bytes: u64) -> Result<(), Failure> {
    let has = context.array.device_show(device).await?.size_bytes;
    if has == size_bytes {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{device} has {has} bytes, and both volumes of a pair have the same size: leave out --size"
    )))
}

/// A number that nobody has used.
pub fn random() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Failure::Runtime(std::io::ErrorKind::Unsupported.into()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_here_or_behind_a_link() {
        let parsed = |text: &str| volume(text).map(|volume| (volume.device, volume.link));
        assert_eq!(parsed("db"), Ok(("db".to_owned(), None)));
        assert_eq!(parsed("db@"), Ok(("db".to_owned(), None)));
        assert_eq!(parsed("db@tokyo"), Ok(("db".to_owned(), Some("tokyo".to_owned()))));
        for text in ["", "@tokyo", "@", "db@a@b"] {
            assert_eq!(parsed(text), Err(WordError::Volume), "{text}");
        }
    }
}
