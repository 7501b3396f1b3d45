//! Any message, for proptest.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use twintrack_core::remote::{Half, Halt, Lineage, Mode, Policy, Role, Stage};
use twintrack_core::{PairGeneration, PairId, RegionNo, TrackNo};
use twintrack_link::remote::{
    Answer, CreateDevice, CreateHalf, Hello, LinkRefusal, MarkSet, Marks, Message, Note, PairState,
    PeerError, PeerErrorCode, PreparedPoint, Refused, Request, RequestNo,
};

/// A message of any kind.
pub fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        hello().prop_map(Message::Hello),
        refused().prop_map(Message::Refused),
        any::<u64>().prop_map(|n| Message::Ping { n }),
        any::<u64>().prop_map(|n| Message::Pong { n }),
        (vec(pair_state(), 0..4), any::<bool>()).prop_map(|(pairs, last)| Message::States { pairs, last }),
        marks().prop_map(Message::Marks),
        pairs().prop_map(|pairs| Message::Agreed { pairs }),
        (id(), request()).prop_map(|(id, what)| Message::Request { id, what }),
        (id(), request()).prop_map(|(id, what)| Message::Request { id, what }),
        (id(), answer()).prop_map(|(id, answer)| Message::Answer { id, result: Ok(answer) }),
        (id(), error()).prop_map(|(id, error)| Message::Answer { id, result: Err(error) }),
        Just(Message::Note(Note::Leaving)),
        (pairs(), halt()).prop_map(|(pairs, halt)| Message::Note(Note::Halted { pairs, halt })),
    ]
}

/// A request of any kind.
pub fn request() -> impl Strategy<Value = Request> {
    let range = || (pair(), track(), any::<u32>(), any::<u32>());
    prop_oneof![
        (pair(), track(), any::<u32>(), payload()).prop_map(|(pair, track, within, data)| Request::Write {
            pair,
            track,
            within,
            data
        }),
        range().prop_map(|(pair, track, within, length)| Request::Zeros { pair, track, within, length }),
        range().prop_map(|(pair, track, _, count)| Request::Clear { pair, track, count }),
        (range(), 1..=2048u32).prop_map(|((pair, track, within, _), sectors)| {
            Request::Fetch { pair, track, within, length: sectors * 512 }
        }),
        pairs().prop_map(|pairs| Request::Flush { pairs }),
        (pair(), track()).prop_map(|(pair, track)| Request::Sums { pair, track }),
        payload().prop_map(|data| Request::Echo { data }),
        create().prop_map(|half| Request::Create(Box::new(half))),
        pair().prop_map(|pair| Request::Ready { pair }),
        pair().prop_map(|pair| Request::Destroy { pair }),
        pair().prop_map(|pair| Request::End { pair }),
        (pairs(), halt()).prop_map(|(pairs, halt)| Request::Halt { pairs, halt }),
        pairs().prop_map(|pairs| Request::Resume { pairs }),
        (pair(), mode()).prop_map(|(pair, mode)| Request::SetMode { pair, mode }),
        pairs().prop_map(|pairs| Request::Release { pairs }),
        pair().prop_map(|pair| Request::Begin { pair }),
        pair().prop_map(|pair| Request::Taken { pair }),
        (pair(), lineage()).prop_map(|(pair, lineage)| Request::Complete { pair, lineage }),
        (pair(), lineage()).prop_map(|(pair, lineage)| Request::Yield { pair, lineage }),
        (any::<u64>(), pairs(), name(), any::<bool>())
            .prop_map(|(request, pairs, name, online)| Request::Prepare { request, pairs, name, online }),
        (vec(any::<u64>(), 0..4), vec(any::<u64>(), 0..4))
            .prop_map(|(decided, open)| Request::Settle { decided, open }),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Done),
        payload().prop_map(Answer::Data),
        Just(Answer::Zeros),
        vec(any::<u32>(), 0..=256).prop_map(Answer::Sums),
        (any::<bool>(), lineage())
            .prop_map(|(made_device, lineage)| Answer::Created { made_device, lineage }),
        vec((pair(), lineage()), 0..4).prop_map(|pairs| Answer::Released { pairs }),
        vec(point(), 0..4).prop_map(|points| Answer::Prepared { points }),
    ]
}

pub fn hello() -> impl Strategy<Value = Hello> {
    (any::<u16>(), any::<u64>(), any::<u32>(), any::<u32>(), name()).prop_map(
        |(version, serial, boot, track_bytes, name)| Hello { version, serial, boot, track_bytes, name },
    )
}

fn refused() -> impl Strategy<Value = Refused> {
    let code = prop_oneof![
        Just(LinkRefusal::Version),
        Just(LinkRefusal::UnknownArray),
        Just(LinkRefusal::WrongSerial),
        Just(LinkRefusal::SelfLink),
        Just(LinkRefusal::TrackSize),
        Just(LinkRefusal::Busy),
    ];
    (any::<u64>(), code, ".{0,200}").prop_map(|(serial, code, reason)| Refused { serial, code, reason })
}

fn error() -> impl Strategy<Value = PeerError> {
    let code = prop_oneof![
        Just(PeerErrorCode::NotFound),
        Just(PeerErrorCode::Exists),
        Just(PeerErrorCode::WrongState),
        Just(PeerErrorCode::Limit),
        Just(PeerErrorCode::Invalid),
        Just(PeerErrorCode::NoSpace),
        Just(PeerErrorCode::Io),
        Just(PeerErrorCode::Unavailable),
    ];
    (code, ".{0,200}").prop_map(|(code, reason)| PeerError { code, reason })
}

fn pair_state() -> impl Strategy<Value = PairState> {
    let axes = (half(), stage(), role(), mode(), policy(), option::of(halt()));
    let data = (any::<bool>(), any::<bool>(), lineage(), option::of(generation()));
    (pair(), axes, data, any::<(u32, u64, u32)>()).prop_map(|(pair, axes, data, numbers)| {
        let (peer_boot, size_bytes, owed_tracks) = numbers;
        let (half, stage, role, mode, policy, halt) = axes;
        let (forced, complete, lineage, shared) = data;
        PairState {
            pair,
            half,
            stage,
            role,
            forced,
            mode,
            policy,
            halt,
            complete,
            lineage,
            shared,
            peer_boot,
            size_bytes,
            owed_tracks,
        }
    })
}

fn marks() -> impl Strategy<Value = Marks> {
    let set = prop_oneof![Just(MarkSet::Dirty), Just(MarkSet::Owed), Just(MarkSet::Lacked)];
    let regions = proptest::collection::btree_map(any::<u32>(), 1..=u64::MAX, 0..40);
    (pair(), set, option::of(track()), regions, any::<bool>()).prop_map(|(pair, set, from, regions, last)| {
        let regions = regions.into_iter().map(|(region, tracks)| (RegionNo(region), tracks)).collect();
        Marks { pair, set, from, regions, last }
    })
}

fn create() -> impl Strategy<Value = CreateHalf> {
    let device = option::of(option::of(name()).prop_map(|pool| CreateDevice { pool }));
    let names = (name(), name(), name(), device);
    let kinds = (half(), half(), mode(), policy());
    (pair(), any::<u64>(), names, kinds, any::<u64>(), lineage()).prop_map(
        |(pair, request, names, kinds, size_bytes, lineage)| {
            let (device, peer_device, group, create) = names;
            let (half, from, mode, policy) = kinds;
            CreateHalf {
                pair,
                request,
                half,
                device,
                peer_device,
                create,
                size_bytes,
                from,
                mode,
                policy,
                group,
                lineage,
            }
        },
    )
}

fn point() -> impl Strategy<Value = PreparedPoint> {
    (any::<u32>(), name()).prop_map(|(session, shown_by)| PreparedPoint { session, shown_by })
}

fn lineage() -> impl Strategy<Value = Lineage> {
    (generation(), proptest::collection::btree_set(generation(), 0..=15)).prop_map(|(current, others)| {
        let ancestors = others.into_iter().filter(|other| *other != current).collect();
        Lineage::from_parts(current, ancestors).unwrap()
    })
}

fn generation() -> impl Strategy<Value = PairGeneration> {
    (any::<u64>(), any::<u32>()).prop_map(|(serial, number)| PairGeneration { serial, number })
}

fn pair() -> impl Strategy<Value = PairId> {
    (any::<u64>(), any::<u32>()).prop_map(|(serial, number)| PairId { serial, number })
}

fn pairs() -> impl Strategy<Value = Vec<PairId>> {
    vec(pair(), 0..20)
}

fn id() -> impl Strategy<Value = RequestNo> {
    any::<u64>().prop_map(RequestNo)
}

fn track() -> impl Strategy<Value = TrackNo> {
    any::<u32>().prop_map(TrackNo)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zä-ü0-9._-]{0,32}"
}

fn payload() -> impl Strategy<Value = Bytes> {
    (any::<u8>(), 0..20usize)
        .prop_map(|(first, sectors)| (0..sectors * 512).map(|n| first.wrapping_add(n as u8)).collect())
}

fn half() -> impl Strategy<Value = Half> {
    prop_oneof![Just(Half::R1), Just(Half::R2)]
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::Creating), Just(Stage::Ready), Just(Stage::Undoing), Just(Stage::Ended)]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Owner), Just(Role::Standby), Just(Role::Released)]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Synchronous), Just(Mode::Adaptive), Just(Mode::Asynchronous)]
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Continue), Just(Policy::Freeze)]
}

fn halt() -> impl Strategy<Value = Halt> {
    prop_oneof![
        Just(Halt::Operator),
        Just(Halt::Link),
        Just(Halt::Peer),
        Just(Halt::Space),
        Just(Halt::Split),
        Just(Halt::Frozen),
        Just(Halt::Diverged),
    ]
}
