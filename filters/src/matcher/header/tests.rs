//! Verdicts as measured on Envoy 1.40.

use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher as StringProto;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::*;
use crate::config::Session;
use crate::http::HeaderName;

#[test]
#[expect(deprecated, reason = "Envoy still accepts the field")]
fn missing_repeated_and_inverted_by_table() {
    use HeaderMatchSpecifier as S;
    let exact = |text: &str| {
        let match_pattern = Some(MatchPattern::Exact(text.into()));
        Some(S::StringMatch(StringProto { ignore_case: false, match_pattern }))
    };
    let range = Some(S::RangeMatch(Int64Range { start: -5, end: 10 }));
    let values: [&[&str]; 13] = [
        &[],
        &["a"],
        &["b"],
        &["a", "b"],
        &["b", "a"],
        &["b", "c"],
        &[""],
        &["5"],
        &["+5"],
        &["10"],
        &["-5"],
        &["a,b"],
        &["7", "99"],
    ];
    // Which of the values match, in their order.
    for (specifier, invert, missing_as_empty, verdicts) in [
        (exact("a"), false, false, ".y.yy........"),
        (exact("a"), true, false, "..y..yyyyyyyy"),
        (exact("a"), true, true, "y.y..yyyyyyyy"),
        (exact(""), false, true, "y.....y......"),
        (exact("a,b"), false, false, "...........y."),
        (Some(S::PresentMatch(true)), false, false, ".yyyyyyyyyyyy"),
        (Some(S::PresentMatch(false)), false, false, "y............"),
        (Some(S::PresentMatch(true)), true, false, "y............"),
        (Some(S::PresentMatch(false)), true, false, ".yyyyyyyyyyyy"),
        (Some(S::PresentMatch(true)), false, true, "yyyyyyyyyyyyy"),
        (range.clone(), false, false, ".......yy.y.y"),
        (range, true, false, ".yyyyyy..y.y."),
        (None, false, false, ".yyyyyyyyyyyy"),
        (Some(S::ExactMatch(String::new())), false, false, ".yyyyyyyyyyyy"),
        (Some(S::ExactMatch("a".into())), false, false, ".y.yy........"),
    ] {
        let proto = Proto {
            name: "X-H".into(),
            invert_match: invert,
            treat_missing_header_as_empty: missing_as_empty,
            header_match_specifier: specifier.clone(),
        };
        let session = Session::default();
        let matcher = HeaderMatcher::parse(proto, session.root(), RegexLimits::default()).expect("valid");
        let mut got = String::new();
        for values in values {
            let mut head = RequestHead::default();
            for value in values {
                head.headers.append(HeaderName::parse(b"x-h").expect("a name"), (*value).to_owned());
            }
            got.push(if matcher.matches(&head) { 'y' } else { '.' });
        }
        assert_eq!(got, verdicts, "{specifier:?} {invert} {missing_as_empty}");
    }
}
