//! Header-name spelling on the wire: lower case unless `header_key_format` says otherwise.

use bytes::{Bytes, BytesMut};

/// How names are written.
#[derive(Clone, Copy, Debug, Default)]
pub enum HeaderFormat<'a> {
    /// Lower case, Envoy's default.
    #[default]
    Lower,
    /// `proper_case_words`: a letter that starts a word is upper case.
    ProperCase,
    /// `preserve_case`: as the message spelled them when it was received.
    Preserve {
        /// The spellings the decoder recorded.
        case: &'a HeaderCase,
        /// Whether names that were not in the message are written in proper case (`formatter_type_on_envoy_headers:
        /// PROPER_CASE`) instead of lower case.
        proper_case_others: bool,
    },
}

impl HeaderFormat<'_> {
    /// Spells `name`, which holds a lower-case name just written.
    pub(super) fn apply(&self, name: &mut [u8]) {
        match self {
            Self::Lower => {}
            Self::ProperCase => proper_case(name),
            Self::Preserve { case, proper_case_others } => match case.spelling(name) {
                Some(spelling) => name.copy_from_slice(spelling),
                None if *proper_case_others => proper_case(name),
                None => {}
            },
        }
    }
}

/// How a response is spelled to its client: the spellings its upstream used, and how those of the proxy's own names.
#[derive(Clone, Debug)]
pub struct Spelling {
    /// What the upstream used.
    pub case: HeaderCase,
    /// `formatter_type_on_envoy_headers: PROPER_CASE`
    pub proper_case_others: bool,
    /// `forward_reason_phrase`
    pub forward_reason: bool,
}

impl Spelling {
    /// How names are written.
    #[must_use]
    pub const fn format(&self) -> HeaderFormat<'_> {
        HeaderFormat::Preserve { case: &self.case, proper_case_others: self.proper_case_others }
    }

    /// The reason phrase to pass on.
    #[must_use]
    pub fn reason(&self) -> Option<&[u8]> {
        self.case.reason().filter(|reason| self.forward_reason && !reason.is_empty())
    }
}

/// The spellings of a received message's header names; the first one of a name counts.
#[derive(Clone, Debug, Default)]
pub struct HeaderCase {
    names: BytesMut,
    ends: Vec<u32>,
    reason: Option<Bytes>,
}

impl HeaderCase {
    /// The reason phrase a response was received with, for `forward_reason_phrase`.
    #[must_use]
    pub fn reason(&self) -> Option<&[u8]> {
        self.reason.as_deref()
    }

    pub(super) fn set_reason(&mut self, reason: Bytes) {
        self.reason = Some(reason);
    }

    pub(super) fn record(&mut self, name: &[u8]) {
        self.names.extend_from_slice(name);
        self.ends.push(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
    }

    fn spelling(&self, lower: &[u8]) -> Option<&[u8]> {
        let mut start = 0;
        for end in &self.ends {
            let name = self.names.get(start..*end as usize)?;
            if name.eq_ignore_ascii_case(lower) {
                return Some(name);
            }
            start = *end as usize;
        }
        None
    }
}

fn proper_case(name: &mut [u8]) {
    let mut starts_word = true;
    for byte in name {
        if starts_word {
            byte.make_ascii_uppercase();
        }
        starts_word = !byte.is_ascii_alphanumeric();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_envoy_spells_them() {
        let mut case = HeaderCase::default();
        case.record(b"X-MiXed");
        case.record(b"x-mixed");
        case.record(b"HoSt");
        let preserve = HeaderFormat::Preserve { case: &case, proper_case_others: false };
        let preserve_proper = HeaderFormat::Preserve { case: &case, proper_case_others: true };
        for (format, name, spelled) in [
            (HeaderFormat::Lower, "x-a", "x-a"),
            (HeaderFormat::ProperCase, "x-mixed-a_b", "X-Mixed-A_B"),
            (HeaderFormat::ProperCase, "x--a-1b", "X--A-1b"),
            (preserve, "x-mixed", "X-MiXed"),
            (preserve, "host", "HoSt"),
            (preserve, "x-request-id", "x-request-id"),
            (preserve_proper, "x-request-id", "X-Request-Id"),
        ] {
            let mut bytes = name.as_bytes().to_vec();
            format.apply(&mut bytes);
            assert_eq!(String::from_utf8_lossy(&bytes), spelled);
        }
    }
}
