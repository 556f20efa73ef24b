//! Base64 with the alphabet of URLs (RFC 4648 section 5), as forgiving as the library Envoy reads it with: padding is
//! optional, white space is skipped, and bits that fill up the last byte may be anything.

/// The bytes that `text` stands for; `None` where it is no such encoding.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut symbols = text.iter().filter(|byte| !matches!(byte, b' ' | 0x09..=0x0d));
    let (mut bits, mut count) = (0_u32, 0_u32);
    let mut padding = 0;
    for &symbol in symbols.by_ref() {
        let Some(value) = value(symbol) else {
            if symbol != b'=' && symbol != b'.' {
                return None;
            }
            padding = 1;
            break;
        };
        bits = bits << 6 | u32::from(value);
        count += 1;
        if count == 4 {
            out.extend_from_slice(&bits.to_be_bytes()[1..]);
            (bits, count) = (0, 0);
        }
    }
    for &symbol in symbols {
        if symbol != b'=' && symbol != b'.' {
            return None;
        }
        padding += 1;
    }
    let expected = match count {
        0 => 0,
        2 => {
            out.push((bits >> 4).to_be_bytes()[3]);
            2
        }
        3 => {
            out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]);
            1
        }
        _ => return None,
    };
    (padding == 0 || padding == expected).then_some(out)
}

const fn value(symbol: u8) -> Option<u8> {
    Some(match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forgiving_where_envoy_is() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("YQ", Some(b"a")),
            ("YQ==", Some(b"a")),
            ("YQ..", Some(b"a")),
            ("YQ=", None),
            ("YQ===", None),
            ("YR", Some(b"a")),
            ("YWI", Some(b"ab")),
            ("YWI=", Some(b"ab")),
            ("YWJj", Some(b"abc")),
            ("YWJj=", None),
            ("Y W\tJj\n", Some(b"abc")),
            ("Y", None),
            ("=", None),
            ("YWI=Y", None),
            ("YW+j", None),
            ("YW/j", None),
            ("-_-_", Some(&[0xfb, 0xff, 0xbf])),
            ("YW\u{e9}", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), bytes, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn undoes_what_encodes(bytes: Vec<u8>) {
            prop_assert_eq!(decode(URL_SAFE_NO_PAD.encode(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn takes_any_bytes(bytes: Vec<u8>) {
            decode(&bytes);
        }
    }
}
