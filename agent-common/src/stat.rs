//! What the kernel programs count about themselves, one `u64` per CPU and member.

/// Index into the per-CPU statistics array.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stat {
    /// Records a program tried to write. Received + every loss below that says "record" = this.
    Emitted = 0,
    /// Lost record: the ring buffer was full.
    RingFull = 1,
    /// Lost attempt: a kernel structure could not be read.
    ReadFailed = 2,
    /// Lost attempt: the TCP header lay outside the packet's linear part.
    HeaderNotLinear = 3,
    /// Lost names: [`crate::count::COUNTS_MAX`] keys are in use; counted without its names.
    CountsFull = 4,
    /// Lost attempt: more SYNs between lookup and verdict than [`crate::attempt::PENDING_MAX`].
    PendingFull = 5,
    /// Lost memory: an attempt could not be stored, its retransmit would count as a new attempt.
    AttemptsFull = 6,
    /// Lost attempt: the packet's address was used again before IPVS's verdict was seen.
    VerdictMissed = 7,
    /// Lost attempt: more calls open at once than the table of kept arguments holds.
    CallsFull = 8,
    /// Lost attempt: the entry IPVS returned does not carry the addresses of the packet that asked
    /// for it, so the layout is wrong for this kernel. Nothing is counted from then on.
    LayoutContradicted = 9,
    /// Lost outcome: more than [`crate::follow::FOLLOWED_MAX`] stale attempts are on their way.
    FollowedFull = 10,
    /// Lost record: this CPU has no perf buffer yet.
    CpuWithoutBuffer = 11,
}

impl Stat {
    /// Every member, in index order.
    pub const ALL: &'static [Self] = &[
        Self::Emitted,
        Self::RingFull,
        Self::ReadFailed,
        Self::HeaderNotLinear,
        Self::CountsFull,
        Self::PendingFull,
        Self::AttemptsFull,
        Self::VerdictMissed,
        Self::CallsFull,
        Self::LayoutContradicted,
        Self::FollowedFull,
        Self::CpuWithoutBuffer,
    ];

    /// Number of members, as the size of the map.
    #[expect(clippy::cast_possible_truncation, reason = "a handful")]
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The `reason` under which a loss is published; `None` for what is no loss.
    pub const fn loss_reason(self) -> Option<&'static str> {
        match self {
            Self::Emitted => None,
            Self::RingFull => Some("ring_full"),
            Self::ReadFailed => Some("kernel_read_failed"),
            Self::HeaderNotLinear => Some("header_not_linear"),
            Self::CountsFull => Some("counts_full"),
            Self::PendingFull => Some("pending_full"),
            Self::AttemptsFull => Some("attempts_full"),
            Self::VerdictMissed => Some("verdict_missed"),
            Self::CallsFull => Some("calls_full"),
            Self::LayoutContradicted => Some("layout_contradicted"),
            Self::FollowedFull => Some("followed_full"),
            Self::CpuWithoutBuffer => Some("cpu_without_buffer"),
        }
    }
}
