//! Planted defects: each breaks one rule on purpose, so that the simulator can prove that it would notice.
//!
//! They exist in builds with debug assertions only; elsewhere [`planted`] is `false` at compile time.

macro_rules! defects {
    ($($name:ident $text:literal $rule:literal;)*) => {
        /// One rule that can be broken. The doc of each says what is done wrongly.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Defect {
            $(#[doc = $rule] $name,)*
        }

        impl Defect {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is called on a command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The rule it breaks and how.
            pub fn describe(self) -> &'static str {
                match self { $(Self::$name => $rule,)* }
            }
        }
    };
}

defects! {
    FlushWithoutSync "flush-without-sync" "rule 1: a FLUSH with nothing to commit is answered without a sync";
    BootUnsynced "boot-unsynced" "rule 1: after a restart a FLUSH does not cover what the process before had written";
    CommitAheadOfData "commit-ahead-of-data" "rule 2: a commit carries units whose blocks no sync has covered";
    CommitOutOfOrder "commit-out-of-order" "rule 2: a commit leaves out its oldest unit, which goes with the next";
    PointToldEarly "point-told-early" "rule 2a: an activation is told of without a sync begun after its cut";
    UnitTorn "unit-torn" "rule 2b: what one command changes is committed in two halves";
    DropReused "drop-reused" "rule 3: a dropped track is free for others before the unit that dropped it is committed";
    DropWrittenInPlace "drop-written-in-place" "rule 3: a reference dropped but not committed does not hinder writing in place";
    LapseForgotten "lapse-forgotten" "rule 3a: protection ends at once, not when the unit that ended it is committed";
    ReplyBeforeCommit "reply-before-commit" "rule 4: a FLUSH or command is answered after the sync, before its commit";
    HeaderLate "header-late" "rule 6: the header of a track is written one round after its birth is committed";
    ReadUnpinned "read-unpinned" "rule 7: a read in flight does not hold the tracks that it reads";
    WriteUnpinned "write-unpinned" "rule 7: a write in flight does not hold the base that its entry will name";
    ActivateUndrained "activate-undrained" "rule 7: an activation does not wait for the writes in flight";
    TrimUndrained "trim-undrained" "rule 7: a trim does not wait for the writes in flight to its track";
    OverlapUnordered "overlap-unordered" "rule 7: overlapping writes go at the same time";
    DiscardUnheld "discard-unheld" "rule 7: a track is free for others while its discard is in flight";
    MarkedEarly "marked-early" "rule 8: the marker of a formatted array is set before its metadata are made";
    SyncErrorForgotten "sync-error-forgotten" "rule 9: after a failed sync the next one counts as success";
    CommitErrorIgnored "commit-error-ignored" "rule 9: a failed commit is taken for a good one";
    OldTrackNotKept "old-track-not-kept" "D3: the first write after an activation keeps no version";
    VersionOffByOne "version-off-by-one" "D3: a version is kept for one generation too few";
    StampFromDevice "stamp-from-device" "D3: after a restart a track counts as written in the device's generation";
    MaskBitTooMany "mask-bit-too-many" "D4: an overlay's mask has the block after the last written one, too";
    OverlayNotCarried "overlay-not-carried" "D4: the blocks of a shared overlay are not copied to the new one";
    RestOfBlockZeroed "rest-of-block-zeroed" "D4: a write of less than a block zeroes the rest of it";
    WindowEndIgnored "window-end-ignored" "D15: a deactivated session sees versions made after its end";
    OwnNotReturned "own-not-returned" "D6: a removed session's own tracks are not given back";
    PolicyIgnored "policy-ignored" "out of log space: a session fails though its pool refuses writes instead";
    WriteRefused "write-refused" "out of log space: a write is refused though a session could be failed for it";
    MarkNotAwaited "mark-not-awaited" "rule 5: a write to a paired device does not wait for its region's mark";
    MarksUntold "marks-untold" "rule 5: a half that stands by and was restarted does not tell its dirty regions";
    OwedNotNoted "owed-not-noted" "rule 5: a halt does not note what its writes under way leave owed";
    CopyPaysLater "copy-pays-later" "rule 5: a copy on its way pays for what was written after it was read";
    ReplyBeforePeer "reply-before-peer" "pairs: a host has its answer before the peer has the write";
    FlushHereOnly "flush-here-only" "pairs: a flush of a synchronous pair does not reach the peer";
    ServesAfterRelease "serves-after-release" "pairs: who gives a volume up goes on serving it";
    ForcedUnnoted "forced-unnoted" "F4: a forced failover begins no generation, so the halves look alike";
    LossUntold "loss-untold" "F5: who fails over by force is told that nothing is lost that was answered before that";
    CreationLeft "creation-left" "A7: half a creation that the other array does not know is left as it is";
    LackedServedHere "lacked-served-here" "A9: a track that is still to come from the peer is read as it is here";
    HaltsOneByOne "halts-one-by-one" "pairs: what the arrays notice of one pair of a group holds up that one only";
    PeerFlushedEarly "peer-flushed-early" "rule 1: a flush that the peer asks for is answered without a sync";
    StaleFrameTaken "stale-frame-taken" "link: what was sent on a link that another has replaced is carried out";
    StaleAnswerCounts "stale-answer-counts" "link: the answer to a copy of before a write counts for the copy after it";
    FrozenWrites "frozen-writes" "pairs: a frozen pair takes writes";
    ThawsEarly "thaws-early" "pairs: a frozen pair takes writes before it is durable that it is not frozen any more";
    LeavesUndrained "leaves-undrained" "pairs: hosts use a deleted half into which the other array is still writing";
    ReleaseUndrained "release-undrained" "pairs: a volume is given up while writes to it are under way";
    ReleaseBehind "release-behind" "pairs: a volume is given up before the other half has all that it lacked";
    ForcedUndrained "forced-undrained" "pairs: a half is made to serve by force while what the other array has sent it still lands";
    SplitForgotten "split-forgotten" "F4: halves that have diverged are made the same without asking";
    LoserNotKept "loser-not-kept" "F4: what lost a split brain is not kept";
    AloneUnnoted "alone-unnoted" "F4: a half that is written alone begins no generation";
    CopyUnheld "copy-unheld" "A8: hosts write to a track in place while it is read to be copied";
    CopyWithoutTail "copy-without-tail" "A8: of the last track only whole blocks are copied";
    PaidEarly "paid-early" "A8: a track counts as copied when it is sent, not when the peer has it";
    VerifyUnheld "verify-unheld" "verify: hosts write to a track in place while it is compared";
    DirtyNotOwed "dirty-not-owed" "rule 5: after a restart a half that serves does not owe its dirty regions";
    HalfCopiedServes "half-copied-serves" "pairs: a half into which a copy was under way is made to serve";
    JointUndrained "joint-undrained" "F3: a snapshot on both arrays does not wait for what is in flight to the other one, nor that for what it is writing";
    PreparedToldEarly "prepared-told-early" "F3: an array says that its part of a snapshot is prepared before that is durable";
    DecidedEarly "decided-early" "F3: the other array and the caller hear of a decision before it is durable";
    UntoldForgotten "untold-forgotten" "F3: after a restart the other array does not hear of what was decided before";
    ReturnNotOwed "return-not-owed" "what a half is put back to at its safety copy is not owed to the other array";
    ReturnInPart "return-in-part" "a half is said to be back at its safety copy before all of its tracks are";
    FillKeepsNothing "fill-keeps-nothing" "D10: a restore does not keep what older sessions see of a track";
    FillServedHere "fill-served-here" "D10: a track that is still to come is shown as the target's own table has it";
    UnequalUnnoted "unequal-unnoted" "C3: a write to a track that was equal does not note that it is not any more";
    BitNotAwaited "bit-not-awaited" "C3: a track that became unequal is written in place before that is durable";
    UnpairedEarly "unpaired-early" "rule 3a: a pair counts no more at once, not when the unit that ended it is committed";
    ResyncForgets "resync-forgets" "C5: re-synchronize forgets what is unequal";
    PartBeginsLate "part-begins-late" "D19: the first track of a part is not put back by its restore";
    FillEndsEarly "fill-ends-early" "D10: a copy ends with its first step, whatever is still to come";
    OtherSessionRestored "other-session-restored" "D10: sessions of before a restore show what is still to come to their device";
    RestoreUnnoted "restore-unnoted" "C5: what a restore brings to a volume of a pair is not noted as unequal";
    RestoreBeforeLost "restore-before-lost" "D10: what a device was before a restore is not kept";
    RestoredSessionShown "restored-session-shown" "D10: a session that a restore has used up goes on";
    PairSecondaryOpen "pair-secondary-open" "C2: hosts use a secondary that is paired and not copied";
    MoveUnlanded "move-unlanded" "C7: the entry of a track that is moved to another pool changes before its data are there";
    MoveUntaken "move-untaken" "C7: a track is moved to another pool though another one is still to come in its place";
    MovedPointerAhead "moved-pointer-ahead" "C3: the copy pointer is noted ahead of tracks that are not moved";
    SplitCalledDuplex "split-called-duplex" "C13: a pair whose volumes differ is called duplex";
    MissedRunForgotten "missed-run-forgotten" "C8: a copy that was due while the array was down is not made up for";
    RunRepeated "run-repeated" "C8: a copy that a schedule has made is made again";
    TurnKept "turn-kept" "C8: a schedule copies to the same secondary again, though it has others";
    MissedMadeEach "missed-made-each" "C8: each copy that was missed is made up for, one after the other";
    HighestChosen "highest-chosen" "C9: of the reserved volumes that fit the highest-numbered one is chosen";
    ReservedServes "reserved-serves" "C9: hosts use a reserved volume that is not copied to";
    SecondPartLost "second-part-lost" "D19: of several parts of a device only the first one keeps old tracks";
    DiffMissesLast "diff-misses-last" "F7: of the tracks of which a version is kept the last one is left out of what differs";
    DiffShort "diff-short" "F7: bytes that are told to differ end a block too early";
    DiffTellsSame "diff-tells-same" "F7: a track that was written at any time is told to differ, though it lies where it lay";
    TailNotZeroed "tail-not-zeroed" "what lies behind the end of a device is not zeros when it grows";
}

impl Defect {
    /// Whether it shows only where two arrays have pairs.
    pub fn is_of_pairs(self) -> bool {
        matches!(
            self,
            Self::MarkNotAwaited
                | Self::MarksUntold
                | Self::OwedNotNoted
                | Self::CopyPaysLater
                | Self::ReplyBeforePeer
                | Self::FlushHereOnly
                | Self::ServesAfterRelease
                | Self::ForcedUnnoted
                | Self::LossUntold
                | Self::CreationLeft
                | Self::LackedServedHere
                | Self::HaltsOneByOne
                | Self::PeerFlushedEarly
                | Self::StaleFrameTaken
                | Self::StaleAnswerCounts
                | Self::FrozenWrites
                | Self::LeavesUndrained
                | Self::ReleaseUndrained
                | Self::ReleaseBehind
                | Self::ForcedUndrained
                | Self::SplitForgotten
                | Self::LoserNotKept
                | Self::AloneUnnoted
                | Self::CopyUnheld
                | Self::CopyWithoutTail
                | Self::PaidEarly
                | Self::VerifyUnheld
                | Self::DirtyNotOwed
                | Self::HalfCopiedServes
                | Self::JointUndrained
                | Self::PreparedToldEarly
                | Self::DecidedEarly
                | Self::UntoldForgotten
                | Self::ReturnInPart
                | Self::ReturnNotOwed
                | Self::ThawsEarly
        )
    }

    /// Whether it shows only where something is copied within an array.
    pub fn is_of_copies(self) -> bool {
        matches!(
            self,
            Self::FillKeepsNothing
                | Self::FillServedHere
                | Self::UnequalUnnoted
                | Self::BitNotAwaited
                | Self::UnpairedEarly
                | Self::ResyncForgets
                | Self::PartBeginsLate
                | Self::FillEndsEarly
                | Self::OtherSessionRestored
                | Self::RestoreUnnoted
                | Self::RestoreBeforeLost
                | Self::RestoredSessionShown
                | Self::PairSecondaryOpen
                | Self::MoveUnlanded
                | Self::MoveUntaken
                | Self::MovedPointerAhead
                | Self::SplitCalledDuplex
                | Self::MissedRunForgotten
                | Self::RunRepeated
                | Self::TurnKept
                | Self::MissedMadeEach
                | Self::HighestChosen
                | Self::ReservedServes
        )
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|defect| defect.name() == name)
    }
}

#[cfg(debug_assertions)]
static PLANTED: [std::sync::atomic::AtomicU64; 2] = [const { std::sync::atomic::AtomicU64::new(0) }; 2];

/// Plants a defect in this process, for good.
#[cfg(debug_assertions)]
pub fn plant(defect: Defect) {
    let number = defect as usize;
    PLANTED[number / 64].fetch_or(1 << (number % 64), std::sync::atomic::Ordering::Relaxed);
}

/// Whether a defect is planted.
#[cfg(debug_assertions)]
#[inline]
pub fn planted(defect: Defect) -> bool {
    let number = defect as usize;
    PLANTED[number / 64].load(std::sync::atomic::Ordering::Relaxed) >> (number % 64) & 1 == 1
}

/// Without debug assertions no defect exists.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn planted(_: Defect) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_the_set() {
        assert!(Defect::ALL.len() <= 128);
        for defect in Defect::ALL {
            assert_eq!(Defect::from_name(defect.name()), Some(*defect));
        }
    }
}
