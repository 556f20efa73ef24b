//! What a connection's reads meet: bytes that were read before, and who is asked whether the peer is heard.

use std::pin::Pin;

use bytes::Bytes;

/// What a connection's reads meet.
#[derive(Default)]
pub(super) struct Ahead {
    /// Bytes taken off the socket while it was being inspected, to be read again first.
    pub(super) prefix: Bytes,
    /// Who is asked before anything that was read is handed out.
    pub(super) gates: Vec<Gate>,
    /// A gate that did not open.
    pub(super) denial: Option<Denial>,
}

/// A peer that is not heard.
pub(super) struct Denial {
    /// What it had said, in bytes.
    pub(super) bytes: u64,
    /// How long it is to wait for its end; `None` when that has come.
    pub(super) lingering: Option<Lingering>,
    /// Its own end is no reason to hurry.
    pub(super) patient: bool,
    /// It goes on talking.
    pub(super) talking: bool,
}

/// Ready when a connection that is not heard is to be closed.
pub type Lingering = Pin<Box<dyn Future<Output = ()>>>;

/// What a gate says.
pub enum Verdict {
    /// The peer is heard, and not asked about again.
    Open,
    /// What came now is heard.
    OpenForNow,
    /// The peer is not heard. Its connection is closed, at once or when this is ready.
    Shut(Option<Lingering>),
}

/// Decides, when a peer says something, whether it is heard.
pub struct Gate {
    /// An end without a word before it is asked about as well.
    pub(super) at_end: bool,
    pub(super) ask: Box<dyn FnMut() -> Verdict>,
}

impl Gate {
    /// A gate that says what `ask` says; with `at_end` about the end of a peer as well.
    #[must_use]
    pub fn new(at_end: bool, ask: impl FnMut() -> Verdict + 'static) -> Self {
        Self { at_end, ask: Box::new(ask) }
    }
}

impl Ahead {
    pub(super) fn of(prefix: Bytes) -> Option<Box<Self>> {
        (!prefix.is_empty()).then(|| Box::new(Self { prefix, ..Self::default() }))
    }

    /// Whether nothing of it is left. A denial stays: it has to be told.
    pub(super) fn is_passed(&self) -> bool {
        self.prefix.is_empty() && self.gates.is_empty() && self.denial.is_none()
    }

    /// Asks the gates about a read of `n` bytes, 0 at the end; false if one is shut, and then those behind it were not asked.
    pub(super) fn pass(&mut self, n: usize) -> bool {
        let mut at = 0;
        while let Some(gate) = self.gates.get_mut(at) {
            if n == 0 && !gate.at_end {
                at += 1;
                continue;
            }
            match (gate.ask)() {
                Verdict::Open => drop(self.gates.remove(at)),
                Verdict::OpenForNow => at += 1,
                Verdict::Shut(lingering) => {
                    let patient = gate.at_end;
                    self.gates.clear();
                    self.denial = Some(Denial { bytes: n as u64, lingering, patient, talking: false });
                    return false;
                }
            }
        }
        true
    }
}
