//! Distinguished names as RFC 2253 writes them, to OpenSSL's letter (`XN_FLAG_RFC2253`): names of attributes as OpenSSL has
//! them, everything beyond ASCII escaped byte by byte, values of unknown attributes as their DER.

use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::x509::X509Name;

/// A distinguished name: the last attribute first.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        let attributes: Vec<_> = part.iter().collect();
        for (n, attribute) in attributes.into_iter().rev().enumerate() {
            if !text.is_empty() {
                text.push(if n == 0 { ',' } else { '+' });
            }
            let kind = attribute.attr_type().to_id_string();
            let known = known(&kind);
            text.push_str(known.unwrap_or(&kind));
            text.push('=');
            let value = attribute.attr_value();
            match known.map(|_| value.tag()) {
                Some(tag) if is_text(tag) => match characters(value) {
                    Some(characters) => escape(&characters, &mut text),
                    // What is not the text it says it is ends the name.
                    None => return text,
                },
                _ => dump(value, &mut text),
            }
        }
    }
    text
}

fn is_text(tag: Tag) -> bool {
    matches!(
        tag,
        Tag::Utf8String
            | Tag::NumericString
            | Tag::PrintableString
            | Tag::T61String
            | Tag::Ia5String
            | Tag::UtcTime
            | Tag::GeneralizedTime
            | Tag::VisibleString
            | Tag::UniversalString
            | Tag::BmpString
    )
}

/// The characters of a string; `None` if it is not well-formed. What is neither Unicode nor UTF-8 is Latin-1.
pub(super) fn characters(value: &Any<'_>) -> Option<Vec<char>> {
    let data = value.data;
    match value.tag() {
        Tag::Utf8String => Some(std::str::from_utf8(data).ok()?.chars().collect()),
        Tag::BmpString => {
            let (units, []) = data.as_chunks::<2>() else { return None };
            units.iter().map(|unit| char::from_u32(u16::from_be_bytes(*unit).into())).collect()
        }
        Tag::UniversalString => {
            let (units, []) = data.as_chunks::<4>() else { return None };
            units.iter().map(|unit| char::from_u32(u32::from_be_bytes(*unit))).collect()
        }
        _ => Some(data.iter().copied().map(char::from).collect()),
    }
}

/// RFC 2253 section 2.4.
fn escape(value: &[char], text: &mut String) {
    use std::fmt::Write;
    let last = value.len().saturating_sub(1);
    for (n, c) in value.iter().copied().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', c]),
            '#' if n == 0 => text.push_str("\\#"),
            ' ' if n == 0 || n == last => text.push_str("\\ "),
            ' '..='~' => text.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02X}");
                }
            }
        }
    }
}

/// `#` and the DER in hexadecimal.
fn dump(value: &Any<'_>, text: &mut String) {
    use std::fmt::Write;
    text.push('#');
    for byte in value.to_der_vec().unwrap_or_default() {
        let _ = write!(text, "{byte:02X}");
    }
}

/// OpenSSL's short name of a type.
fn known(kind: &str) -> Option<&'static str> {
    let (parent, last) = kind.rsplit_once('.')?;
    let (_, names) = NAMES.iter().find(|(it, _)| *it == parent)?;
    let last: u16 = last.parse().ok()?;
    let at = names.binary_search_by_key(&last, |(number, _)| *number).ok()?;
    names.get(at).map(|(_, name)| *name)
}

/// Types of attributes that have a name in OpenSSL, by the parent of their identifiers and the last number in it.
const NAMES: &[(&str, &[(u16, &str)])] = &[
    // X.520
    (
        "2.5.4",
        &[
            (3, "CN"),
            (4, "SN"),
            (5, "serialNumber"),
            (6, "C"),
            (7, "L"),
            (8, "ST"),
            (9, "street"),
            (10, "O"),
            (11, "OU"),
            (12, "title"),
            (13, "description"),
            (14, "searchGuide"),
            (15, "businessCategory"),
            (16, "postalAddress"),
            (17, "postalCode"),
            (18, "postOfficeBox"),
            (19, "physicalDeliveryOfficeName"),
            (20, "telephoneNumber"),
            (21, "telexNumber"),
            (22, "teletexTerminalIdentifier"),
            (23, "facsimileTelephoneNumber"),
            (24, "x121Address"),
            (25, "internationaliSDNNumber"),
            (26, "registeredAddress"),
            (27, "destinationIndicator"),
            (28, "preferredDeliveryMethod"),
            (29, "presentationAddress"),
            (30, "supportedApplicationContext"),
            (31, "member"),
            (32, "owner"),
            (33, "roleOccupant"),
            (34, "seeAlso"),
            (35, "userPassword"),
            (36, "userCertificate"),
            (37, "cACertificate"),
            (38, "authorityRevocationList"),
            (39, "certificateRevocationList"),
            (40, "crossCertificatePair"),
            (41, "name"),
            (42, "GN"),
            (43, "initials"),
            (44, "generationQualifier"),
            (45, "x500UniqueIdentifier"),
            (46, "dnQualifier"),
            (47, "enhancedSearchGuide"),
            (48, "protocolInformation"),
            (49, "distinguishedName"),
            (50, "uniqueMember"),
            (51, "houseIdentifier"),
            (52, "supportedAlgorithms"),
            (53, "deltaRevocationList"),
            (54, "dmdName"),
            (65, "pseudonym"),
            (72, "role"),
        ],
    ),
    // RFC 1274
    (
        "0.9.2342.19200300.100.1",
        &[
            (1, "UID"),
            (2, "textEncodedORAddress"),
            (3, "mail"),
            (4, "info"),
            (5, "favouriteDrink"),
            (6, "roomNumber"),
            (7, "photo"),
            (8, "userClass"),
            (9, "host"),
            (10, "manager"),
            (11, "documentIdentifier"),
            (12, "documentTitle"),
            (13, "documentVersion"),
            (14, "documentAuthor"),
            (15, "documentLocation"),
            (20, "homeTelephoneNumber"),
            (21, "secretary"),
            (22, "otherMailbox"),
            (23, "lastModifiedTime"),
            (24, "lastModifiedBy"),
            (25, "DC"),
            (26, "aRecord"),
            (27, "pilotAttributeType27"),
            (28, "mXRecord"),
            (29, "nSRecord"),
            (30, "sOARecord"),
            (31, "cNAMERecord"),
            (37, "associatedDomain"),
            (38, "associatedName"),
            (39, "homePostalAddress"),
            (40, "personalTitle"),
            (41, "mobileTelephoneNumber"),
            (42, "pagerTelephoneNumber"),
            (43, "friendlyCountryName"),
            (45, "organizationalStatus"),
            (46, "janetMailbox"),
            (47, "mailPreferenceOption"),
            (48, "buildingName"),
            (49, "dSAQuality"),
            (50, "singleLevelQuality"),
            (51, "subtreeMinimumQuality"),
            (52, "subtreeMaximumQuality"),
            (53, "personalSignature"),
            (54, "dITRedirect"),
            (55, "audio"),
            (56, "documentPublisher"),
        ],
    ),
    // PKCS #9
    (
        "1.2.840.113549.1.9",
        &[
            (1, "emailAddress"),
            (2, "unstructuredName"),
            (3, "contentType"),
            (4, "messageDigest"),
            (5, "signingTime"),
            (6, "countersignature"),
            (7, "challengePassword"),
            (8, "unstructuredAddress"),
            (9, "extendedCertificateAttributes"),
            (14, "extReq"),
            (15, "SMIME-CAPS"),
            (16, "SMIME"),
            (20, "friendlyName"),
            (21, "localKeyID"),
        ],
    ),
    // Microsoft
    ("1.3.6.1.4.1.311.20.2", &[(2, "msSmartcardLogin"), (3, "msUPN")]),
    // RFC 3739
    (
        "1.3.6.1.5.5.7.9",
        &[
            (1, "id-pda-dateOfBirth"),
            (2, "id-pda-placeOfBirth"),
            (3, "id-pda-gender"),
            (4, "id-pda-countryOfCitizenship"),
            (5, "id-pda-countryOfResidence"),
        ],
    ),
];
