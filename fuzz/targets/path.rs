//! Paths of a hostile client: a canonical path stays as it is when it is looked at again, or two hops would disagree.
#![no_main]

use filters::http::RequestHead;
use legate::http::path::{EscapedSlashes, PathOptions, PathVerdict};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [switches, path @ ..] = input else { return };
    // What the codecs let through.
    if path.first() != Some(&b'/') || path.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) {
        return;
    }
    let on = |bit: u8| switches & (1 << bit) != 0;
    let options = PathOptions {
        normalize: true,
        merge_slashes: on(0),
        escaped_slashes: if on(1) { EscapedSlashes::Forward } else { EscapedSlashes::Keep },
        strip_fragment: on(2),
        ..PathOptions::default()
    };
    let mut head = RequestHead { path: path.to_vec().into(), ..RequestHead::default() };
    if options.normalize(&mut head) != PathVerdict::Continue {
        return;
    }
    let once = head.path.clone();
    // Unescaping is one level only, as in Envoy: `%252F` is `%2F` to the next hop, and so what is left of a broken escape
    // may be one with what follows it.
    if !on(1) && !broken_escapes(path) {
        assert_eq!(options.normalize(&mut head), PathVerdict::Continue);
        assert_eq!(head.path, once);
    }
});

fn broken_escapes(path: &[u8]) -> bool {
    let whole = |rest: &[u8]| matches!(rest, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
    path.iter().enumerate().any(|(at, byte)| *byte == b'%' && !whole(&path[at + 1..]))
}
