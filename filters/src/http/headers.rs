//! An ordered list of headers: order, duplicates and values exactly as received.
//!
//! Messages carry ten to twenty headers; a linear scan over known-name tags beats hashing at that size, keeps the
//! order Envoy keeps, and its vector is reused from message to message on a connection.

use bytes::Bytes;

use super::HeaderName;

/// One header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower-case name.
    pub name: HeaderName,
    /// Value without surrounding white space; never holds NUL, CR or LF.
    pub value: Bytes,
}

/// The headers or trailers of a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    entries: Vec<Header>,
}

impl Headers {
    /// An empty list that allocates nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// An empty list with room for `n` headers.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { entries: Vec::with_capacity(n) }
    }

    /// Makes room for `n` more headers.
    pub fn reserve(&mut self, n: usize) {
        self.entries.reserve(n);
    }

    /// Adds a header at the end, keeping others of the same name.
    pub fn append(&mut self, name: impl Into<HeaderName>, value: impl Into<Bytes>) {
        self.entries.push(Header { name: name.into(), value: value.into() });
    }

    /// Makes this the only header of its name: the first one's value is replaced in place and further ones removed;
    /// added at the end when there was none.
    pub fn set(&mut self, name: impl Into<HeaderName>, value: impl Into<Bytes>) {
        let name = name.into();
        let Some(first) = self.entries.iter().position(|h| h.name == name) else {
            self.append(name, value);
            return;
        };
        self.entries[first].value = value.into();
        let mut index = 0;
        self.entries.retain(|h| {
            index += 1;
            index - 1 <= first || h.name != name
        });
    }

    /// Removes every header of this name; returns how many there were.
    pub fn remove<N>(&mut self, name: &N) -> usize
    where
        HeaderName: PartialEq<N>,
    {
        let before = self.entries.len();
        self.entries.retain(|h| h.name != *name);
        before - self.entries.len()
    }

    /// The first value of this name.
    #[must_use]
    pub fn value<N>(&self, name: &N) -> Option<&Bytes>
    where
        HeaderName: PartialEq<N>,
    {
        self.entries.iter().find(|h| h.name == *name).map(|h| &h.value)
    }

    /// All values of this name, in order.
    pub fn values<'a, N>(&'a self, name: &'a N) -> impl Iterator<Item = &'a Bytes>
    where
        HeaderName: PartialEq<N>,
    {
        self.entries.iter().filter(move |h| h.name == *name).map(|h| &h.value)
    }

    /// Whether a header of this name exists.
    #[must_use]
    pub fn contains<N>(&self, name: &N) -> bool
    where
        HeaderName: PartialEq<N>,
    {
        self.entries.iter().any(|h| h.name == *name)
    }

    /// Keeps the headers for which `keep` answers true.
    pub fn retain(&mut self, keep: impl FnMut(&Header) -> bool) {
        self.entries.retain(keep);
    }

    /// The headers in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Header> {
        self.entries.iter()
    }

    /// The headers in order, changeable.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Header> {
        self.entries.iter_mut()
    }

    /// How many headers there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no header.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Sum of name and value lengths: what Envoy's `byteSize` counts.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.entries.iter().map(|h| h.name.as_bytes().len() + h.value.len()).sum()
    }

    /// Bytes of HTTP/1 header lines as Envoy meters them: name, colon, value and line end each, without white space.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        self.byte_size() + 3 * self.entries.len()
    }
}

impl<'a> IntoIterator for &'a Headers {
    type Item = &'a Header;
    type IntoIter = std::slice::Iter<'a, Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}

impl IntoIterator for Headers {
    type Item = Header;
    type IntoIter = std::vec::IntoIter<Header>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

impl FromIterator<Header> for Headers {
    fn from_iter<T: IntoIterator<Item = Header>>(iter: T) -> Self {
        Self { entries: iter.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Known;
    use super::*;

    #[test]
    fn set_replaces_the_first_in_place_and_drops_the_rest() {
        let mut headers = Headers::new();
        headers.append(Known::Via, "a");
        headers.append(Known::Server, "s");
        headers.append(Known::Via, "b");
        headers.set(Known::Via, "c");
        let seen: Vec<_> = headers.iter().map(|h| (h.name.as_str(), &h.value[..])).collect();
        assert_eq!(seen, [("via", &b"c"[..]), ("server", b"s")]);
        headers.set(Known::Host, "h");
        assert_eq!(headers.len(), 3, "a new name goes to the end");
        assert_eq!(headers.remove(&Known::Via), 1);
        assert!(!headers.contains(&Known::Via));
    }
}
