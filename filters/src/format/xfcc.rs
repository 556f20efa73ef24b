//! `%XFCC_VALUE%`: what the `x-forwarded-client-cert` header says of a client.

/// A key of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct XfccKey(&'static [u8]);

impl XfccKey {
    /// The key of this name, in any case.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        const KEYS: [&[u8]; 7] = [b"by", b"hash", b"cert", b"chain", b"subject", b"uri", b"dns"];
        KEYS.into_iter().find(|key| key.eq_ignore_ascii_case(name)).map(Self)
    }

    /// Appends the first value of the key in any of the header's elements; false where there is none, or where quotes are
    /// left open.
    pub(super) fn append(self, out: &mut Vec<u8>, header: &[u8]) -> bool {
        if !balanced(header) {
            return false;
        }
        let pairs = split(header, b',').flat_map(|element| split(element, b';'));
        let mut values = pairs.filter_map(|pair| {
            let (key, value) = pair.iter().position(|byte| *byte == b'=').map_or((pair, &b""[..]), |at| {
                let (key, value) = pair.split_at(at);
                (key, &value[1..])
            });
            key.trim_ascii().eq_ignore_ascii_case(self.0).then(|| value.trim_ascii())
        });
        values.next().is_some_and(|value| {
            unquote(out, value);
            true
        })
    }
}

/// The bytes of a text with whether each is a quote that opens or closes. A backslash takes the meaning of a quote or a
/// backslash behind it.
fn quotes(text: &[u8]) -> impl Iterator<Item = (usize, u8, bool)> {
    let mut escaped = false;
    text.iter().enumerate().map(move |(at, byte)| {
        let plain = std::mem::take(&mut escaped);
        if *byte == b'\\' && !plain {
            escaped = matches!(text.get(at + 1), Some(b'"' | b'\\'));
        }
        (at, *byte, *byte == b'"' && !plain)
    })
}

fn balanced(text: &[u8]) -> bool {
    quotes(text).filter(|(_, _, quote)| *quote).count() % 2 == 0
}

/// The parts of a text between separators outside of quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let now = rest?;
        let mut quoted = false;
        for (at, byte, quote) in quotes(now) {
            quoted ^= quote;
            if byte == separator && !quoted {
                rest = Some(&now[at + 1..]);
                return Some(&now[..at]);
            }
        }
        rest = None;
        Some(now)
    })
}

/// Appends a value without the quotes around it and the backslashes that mean something.
fn unquote(out: &mut Vec<u8>, value: &[u8]) {
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    };
    let mut rest = value;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'\\', [second @ (b'"' | b'\\'), after @ ..]) => {
                out.push(*second);
                after
            }
            _ => {
                out.push(*first);
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_key_is_found() {
        for (header, key, expected) in [
            ("By=a;Hash=b;Uri=c", "URI", Some("c")),
            ("BY=a;URI=x;URI=y", "uri", Some("x")),
            ("By=1;URI=first,By=2;URI=second", "uri", Some("first")),
            ("By=1,URI=second", "uri", Some("second")),
            (r#"By=a;Subject="CN=a,O=b";URI=u"#, "subject", Some("CN=a,O=b")),
            (r#"Subject="a\"b\\c";URI=z"#, "subject", Some(r#"a"b\c"#)),
            (r#"Subject="a\\";URI=z"#, "uri", Some("z")),
            (r#"Subject=a\"b;URI=z"#, "subject", Some(r#"a"b"#)),
            (r"Subject=a\;b;URI=x", "subject", Some(r"a\")),
            (r#"URI="a\nb""#, "uri", Some(r"a\nb")),
            (r#"URI="q;r,s""#, "uri", Some("q;r,s")),
            (r#"URI="a" "b""#, "uri", Some(r#"a" "b"#)),
            (r#"URI=" a ""#, "uri", Some(" a ")),
            (r#"Subject="x"y;URI=k"#, "subject", Some(r#""x"y"#)),
            ("URI", "uri", Some("")),
            ("URI=", "uri", Some("")),
            ("URI=a=b", "uri", Some("a=b")),
            (" URI = sp ; DNS=d", "uri", Some("sp")),
            (";URI=a;;DNS=d", "dns", Some("d")),
            (r#""URI"=a"#, "uri", None),
            (r#"URI=a;Subject="unclosed"#, "uri", None),
            (r#"Subject="\";URI=z"#, "uri", None),
            (r#"URI=""#, "uri", None),
            (r#"[{"uri":"a"}]"#, "uri", None),
            ("", "uri", None),
        ] {
            let mut out = Vec::new();
            let found = XfccKey::named(key.as_bytes()).expect("key").append(&mut out, header.as_bytes());
            let found = found.then(|| String::from_utf8(out).expect("text"));
            assert_eq!(found.as_deref(), expected, "{header} {key}");
        }
    }
}
