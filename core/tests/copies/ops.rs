//! What a history is made of. Numbers are taken modulo what there is, so that every history means something and a
//! shorter one still does.

use proptest::prelude::*;

/// One step.
#[derive(Debug, Clone)]
pub enum Op {
    /// Writes sectors of a device or session.
    Write {
        who: u8,
        at: u32,
        sectors: u32,
    },
    /// Makes a track zeros.
    Trim {
        who: u8,
        track: u32,
    },
    /// Completes the overlays of a standard device, from a track on.
    Merge {
        who: u8,
        track: u32,
        most: u8,
    },
    CreateStandard {
        name: u8,
        sectors: u32,
    },
    CreateVirtual {
        name: u8,
    },
    Delete {
        device: u8,
    },
    Rename {
        device: u8,
        name: u8,
    },
    Online {
        device: u8,
        online: bool,
    },
    Grow {
        device: u8,
        sectors: u32,
    },
    BeginGroup,
    CloseGroup {
        group: u8,
    },
    Register {
        device: u8,
        group: Option<u8>,
    },
    Relate {
        session: u8,
        device: u8,
    },
    /// Registers, relates and activates one session, or several of one instant.
    Establish {
        device: u8,
        count: u8,
    },
    /// The same for parts of devices, which one virtual device shows (D19).
    EstablishParts {
        parts: Vec<(u8, u8, u8)>,
    },
    Activate {
        sessions: Vec<u8>,
        name: Option<u8>,
    },
    /// All of a group at one instant (Fig. 19A), or one by one (Fig. 19B).
    ProcessGroup {
        group: u8,
        one_by_one: bool,
    },
    Deactivate {
        session: u8,
    },
    Remove {
        session: u8,
    },
    Fail {
        session: u8,
    },
    Reclaim {
        steps: u8,
    },
    /// Asks which session would fail if the pool were full.
    Victim,
    /// Makes units durable: all, or this part of 256.
    Commit {
        part: u8,
    },
    Restart,
    /// Gives free tracks back to the store; the end of it comes later.
    Discard {
        most: u8,
    },
    Discarded {
        which: u8,
    },
}

/// One step of any kind.
pub fn op() -> impl Strategy<Value = Op> {
    let session = || any::<u8>();
    prop_oneof![
        30 => (any::<u8>(), any::<u32>(), prop_oneof![Just(1u32), 1..9u32, 1..4000u32])
            .prop_map(|(who, at, sectors)| Op::Write { who, at, sectors }),
        4 => (any::<u8>(), any::<u32>()).prop_map(|(who, track)| Op::Trim { who, track }),
        5 => (any::<u8>(), any::<u32>(), 1..4u8).prop_map(|(who, track, most)| Op::Merge { who, track, most }),
        2 => (0..12u8, any::<u32>()).prop_map(|(name, sectors)| Op::CreateStandard { name, sectors }),
        2 => (0..12u8).prop_map(|name| Op::CreateVirtual { name }),
        1 => any::<u8>().prop_map(|device| Op::Delete { device }),
        1 => (any::<u8>(), 0..12u8).prop_map(|(device, name)| Op::Rename { device, name }),
        1 => any::<(u8, bool)>().prop_map(|(device, online)| Op::Online { device, online }),
        2 => (any::<u8>(), any::<u32>()).prop_map(|(device, sectors)| Op::Grow { device, sectors }),
        1 => Just(Op::BeginGroup),
        1 => any::<u8>().prop_map(|group| Op::CloseGroup { group }),
        3 => (any::<u8>(), proptest::option::of(any::<u8>())).prop_map(|(device, group)| Op::Register { device, group }),
        3 => (session(), any::<u8>()).prop_map(|(session, device)| Op::Relate { session, device }),
        9 => (any::<u8>(), 1..3u8).prop_map(|(device, count)| Op::Establish { device, count }),
        3 => proptest::collection::vec(any::<(u8, u8, u8)>(), 1..4).prop_map(|parts| Op::EstablishParts { parts }),
        3 => (proptest::collection::vec(any::<u8>(), 0..4), proptest::option::weighted(0.3, 0..12u8))
            .prop_map(|(sessions, name)| Op::Activate { sessions, name }),
        2 => any::<(u8, bool)>().prop_map(|(group, one_by_one)| Op::ProcessGroup { group, one_by_one }),
        4 => session().prop_map(|session| Op::Deactivate { session }),
        6 => session().prop_map(|session| Op::Remove { session }),
        1 => session().prop_map(|session| Op::Fail { session }),
        6 => (1..4u8).prop_map(|steps| Op::Reclaim { steps }),
        1 => Just(Op::Victim),
        6 => any::<u8>().prop_map(|part| Op::Commit { part }),
        3 => Just(Op::Restart),
        2 => (1..9u8).prop_map(|most| Op::Discard { most }),
        2 => any::<u8>().prop_map(|which| Op::Discarded { which }),
    ]
}
