//! Ring hash and Maglev: sizes, hash function, keys and bounds.

use filters::config::{At, ConfigError};

/// Tuning of ring hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingHash {
    /// How points on the ring are made of host keys.
    pub function: HashFunction,
    /// Entries at least (1024).
    pub minimum_size: u64,
    /// Entries at most (8 Mi); above zero.
    pub maximum_size: u64,
    /// What it shares with Maglev.
    pub hashing: Hashing,
}

/// Tuning of Maglev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    /// Entries of the table: a prime number, or 1 (65537).
    pub table_size: u64,
    /// What it shares with ring hash.
    pub hashing: Hashing,
}

/// Tuning of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashing {
    /// Hosts are hashed by name rather than by address.
    pub use_hostname: bool,
    /// A host's requests in flight, in percent of the average, above which it is passed over; 0 for any number.
    pub balance_factor: u32,
}

/// The hash function of a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// xxHash64.
    #[default]
    XxHash,
    /// MurmurHash2, as GNU's `std::hash`.
    Murmur2,
}

const MAX_RING: u64 = 8 << 20;
const MAX_TABLE: u64 = 5_000_011;

impl Default for RingHash {
    fn default() -> Self {
        Self { function: HashFunction::XxHash, minimum_size: 1024, maximum_size: MAX_RING, hashing: Hashing::default() }
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self { table_size: 65537, hashing: Hashing::default() }
    }
}

impl RingHash {
    /// By the numbers of the extension's `HashFunction`, and the least and greatest size given.
    pub(super) fn new(
        at: At<'_>,
        function: i32,
        (minimum, maximum): (Option<u64>, Option<u64>),
        hashing: Hashing,
    ) -> Result<Self, ConfigError> {
        let function = match function {
            0 | 1 => HashFunction::XxHash,
            2 => HashFunction::Murmur2,
            _ => return Err(at.field("hash_function").error("value must be one of the defined enum values")),
        };
        let size = |name: &str, given: Option<u64>, default| match given {
            Some(size) if size > MAX_RING => {
                Err(at.field(name).error(format_args!("value must be less than or equal to {MAX_RING}")))
            }
            given => Ok(given.unwrap_or(default)),
        };
        let minimum_size = size("minimum_ring_size", minimum, 1024)?;
        let maximum_size = size("maximum_ring_size", maximum, MAX_RING)?;
        if minimum_size > maximum_size {
            return Err(at.error(format_args!(
                "ring hash: minimum_ring_size ({minimum_size}) > maximum_ring_size ({maximum_size})"
            )));
        }
        Ok(Self { function, minimum_size, maximum_size, hashing })
    }
}

impl Maglev {
    pub(super) fn new(at: At<'_>, table_size: Option<u64>, hashing: Hashing) -> Result<Self, ConfigError> {
        let table_size = table_size.unwrap_or(65537);
        let at = at.field("table_size");
        if table_size > MAX_TABLE {
            return Err(at.error(format_args!("value must be less than or equal to {MAX_TABLE}")));
        }
        // Envoy takes 1 for a prime number.
        let prime = table_size > 0 && (2..).take_while(|n| n * n <= table_size).all(|n| !table_size.is_multiple_of(n));
        if prime {
            Ok(Self { table_size, hashing })
        } else {
            Err(at.error("The table size of maglev must be prime number"))
        }
    }
}

impl Hashing {
    pub(super) fn new(at: At<'_>, use_hostname: bool, balance_factor: Option<u32>) -> Result<Self, ConfigError> {
        match balance_factor {
            Some(0..100) => Err(at.field("hash_balance_factor").error("value must be greater than or equal to 100")),
            factor => Ok(Self { use_hostname, balance_factor: factor.unwrap_or(0) }),
        }
    }
}
