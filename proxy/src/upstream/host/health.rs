//! Why a host is not healthy, and what that makes of it.

use std::fmt;
use std::ops::BitOr;

/// The health bits of a host; several parties each own some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthFlags(u32);

/// What a host's bits make of it for load balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Only chosen in panic.
    Unhealthy,
    /// Chosen when healthy hosts cannot take all the load.
    Degraded,
    /// Chosen.
    Healthy,
}

impl HealthFlags {
    /// No bit: healthy.
    pub const NONE: Self = Self(0);
    /// Failed active health checking.
    pub const FAILED_ACTIVE_HC: Self = Self(0x1);
    /// Ejected by outlier detection.
    pub const FAILED_OUTLIER_CHECK: Self = Self(0x2);
    /// The endpoint's `health_status` says `UNHEALTHY` or `TIMEOUT`.
    pub const FAILED_EDS_HEALTH: Self = Self(0x4);
    /// Active health checking says degraded.
    pub const DEGRADED_ACTIVE_HC: Self = Self(0x8);
    /// The endpoint's `health_status` says `DEGRADED`.
    pub const DEGRADED_EDS_HEALTH: Self = Self(0x10);
    /// Gone from the assignment, kept while active health checks pass.
    pub const PENDING_DYNAMIC_REMOVAL: Self = Self(0x20);
    /// Waits for its first active health check.
    pub const PENDING_ACTIVE_HC: Self = Self(0x40);
    /// Left out of the totals: a health check reply asked for it.
    pub const EXCLUDED_VIA_IMMEDIATE_HC_FAIL: Self = Self(0x80);
    /// The active health check timed out.
    pub const ACTIVE_HC_TIMEOUT: Self = Self(0x100);
    /// The endpoint's `health_status` says `DRAINING`.
    pub const EDS_STATUS_DRAINING: Self = Self(0x200);
    /// Outlier detection says degraded.
    pub const DEGRADED_OUTLIER_DETECTION: Self = Self(0x400);

    /// Every bit endpoint discovery owns.
    pub const ALL_EDS: Self =
        Self(Self::FAILED_EDS_HEALTH.0 | Self::DEGRADED_EDS_HEALTH.0 | Self::EDS_STATUS_DRAINING.0);

    const UNHEALTHY: u32 = Self::FAILED_ACTIVE_HC.0
        | Self::FAILED_OUTLIER_CHECK.0
        | Self::FAILED_EDS_HEALTH.0
        | Self::EDS_STATUS_DRAINING.0;
    const DEGRADED: u32 = Self::DEGRADED_ACTIVE_HC.0 | Self::DEGRADED_EDS_HEALTH.0 | Self::DEGRADED_OUTLIER_DETECTION.0;
    const EXCLUDED: u32 =
        Self::PENDING_ACTIVE_HC.0 | Self::EXCLUDED_VIA_IMMEDIATE_HC_FAIL.0 | Self::EDS_STATUS_DRAINING.0;

    /// Names as `/clusters` prints them, in its order.
    const NAMES: [(Self, &'static str); 11] = [
        (Self::FAILED_ACTIVE_HC, "failed_active_hc"),
        (Self::FAILED_OUTLIER_CHECK, "failed_outlier_check"),
        (Self::FAILED_EDS_HEALTH, "failed_eds_health"),
        (Self::DEGRADED_ACTIVE_HC, "degraded_active_hc"),
        (Self::DEGRADED_EDS_HEALTH, "degraded_eds_health"),
        (Self::PENDING_DYNAMIC_REMOVAL, "pending_dynamic_removal"),
        (Self::PENDING_ACTIVE_HC, "pending_active_hc"),
        (Self::EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "excluded_via_immediate_hc_fail"),
        (Self::ACTIVE_HC_TIMEOUT, "active_hc_timeout"),
        (Self::EDS_STATUS_DRAINING, "eds_status_draining"),
        (Self::DEGRADED_OUTLIER_DETECTION, "degraded_outlier_detection"),
    ];

    /// The raw bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From raw bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What these bits make of a host.
    #[must_use]
    pub const fn health(self) -> Health {
        if self.0 & Self::UNHEALTHY != 0 {
            Health::Unhealthy
        } else if self.0 & Self::DEGRADED != 0 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// Left out of the totals that decide over priorities and panic.
    #[must_use]
    pub const fn is_excluded(self) -> bool {
        self.0 & Self::EXCLUDED != 0
    }
}

impl BitOr for HealthFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for HealthFlags {
    /// `healthy`, or `/name` for each bit: the `health_flags` of `/clusters`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut any = false;
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "/{name}")?;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("healthy") }
    }
}
