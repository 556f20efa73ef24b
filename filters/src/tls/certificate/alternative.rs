//! Other names of a subject alternative name (RFC 5280 section 4.2.1.6), which may be anything, as text.

use x509_parser::asn1_rs::{Any, FromDer, Oid, Tag};
use x509_parser::num_bigint::BigInt;

use super::name;

/// The value of an other name as Envoy writes it: strings as they are, numbers in decimal, identifiers dotted, truths
/// as words, structures as their DER. What follows the name's type identifier is given.
pub(super) fn other_name(explicit: &[u8]) -> String {
    let value = || {
        let (_, outer) = Any::from_der(explicit).ok()?;
        let (_, value) = Any::from_der(outer.data).ok()?;
        text(&value, outer.data)
    };
    value().unwrap_or_default()
}

fn text(value: &Any<'_>, der: &[u8]) -> Option<String> {
    let data = value.data;
    Some(match value.tag() {
        Tag::Boolean => if data.iter().any(|byte| *byte != 0) { "true" } else { "false" }.to_owned(),
        Tag::Integer | Tag::Enumerated => BigInt::from_signed_bytes_be(data).to_string(),
        Tag::Oid => Oid::new(data.into()).to_id_string(),
        // The first byte says how many bits of the last one do not count.
        Tag::BitString => lossy(data.get(1..)?),
        Tag::BmpString | Tag::UniversalString => name::characters(value)?.iter().take_while(|c| **c != '\0').collect(),
        Tag::Sequence | Tag::Set => lossy(der),
        Tag::OctetString
        | Tag::PrintableString
        | Tag::T61String
        | Tag::Ia5String
        | Tag::GeneralString
        | Tag::UtcTime
        | Tag::GeneralizedTime
        | Tag::VisibleString
        | Tag::Utf8String => lossy(data),
        _ => return None,
    })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
