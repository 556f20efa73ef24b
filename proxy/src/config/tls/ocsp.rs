//! OCSP responses (RFC 6960) as far as one that is stapled has to be understood: which certificate it is about, and until when.

use std::time::{Duration, SystemTime};

use x509_parser::der_parser::asn1_rs::GeneralizedTime;
use x509_parser::der_parser::der::{DerObject, DerObjectContent, parse_der};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a response says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// Until when it holds; one that does not say holds no longer than it took to read it.
    pub(super) expires: SystemTime,
}

/// Reads a response that is about `certificate`.
pub(super) fn read(der: &[u8], certificate: &[u8]) -> Result<Response, &'static str> {
    const MANY: &str = "Data contained more than a single OCSP response";
    const BROKEN: &str = "OCSP response is malformed";
    let (rest, response) = parse_der(der).map_err(|_| MANY)?;
    if !rest.is_empty() {
        return Err(MANY);
    }
    let parts = response.as_sequence().map_err(|_| BROKEN)?;
    let status = parts.first().ok_or(BROKEN)?;
    if !matches!(status.content, DerObjectContent::Enum(0)) {
        return Err("OCSP response was unsuccessful");
    }
    let bytes = explicit(parts.get(1).ok_or("OCSP response has no body")?, 0).ok_or(BROKEN)?;
    let bytes = bytes.as_sequence().map_err(|_| BROKEN)?;
    let basic = bytes.get(1).and_then(|octets| octets.as_slice().ok()).ok_or(BROKEN)?;
    let (_, basic) = parse_der(basic).map_err(|_| BROKEN)?;
    let data = basic.as_sequence().ok().and_then(|parts| parts.first()).ok_or(BROKEN)?;
    // Version and responder are tagged, the list of responses is the one sequence.
    let singles = data.as_sequence().map_err(|_| BROKEN)?;
    let singles = singles.iter().find_map(|part| part.as_sequence().ok()).ok_or(BROKEN)?;
    let [single] = &singles[..] else {
        return Err("OCSP Response must be for one certificate only");
    };
    let single = single.as_sequence().map_err(|_| BROKEN)?;
    let id = single.first().and_then(|id| id.as_sequence().ok()).ok_or(BROKEN)?;
    let serial = id.get(3).and_then(|serial| serial.as_slice().ok()).ok_or(BROKEN)?;
    let own = X509Certificate::from_der(certificate).is_ok_and(|(_, own)| own.raw_serial() == serial);
    if !own {
        return Err("OCSP response does not match its TLS certificate");
    }
    let expires = single.iter().skip(3).find_map(|part| explicit(part, 0)).and_then(|time| moment(&time));
    Ok(Response { expires: expires.unwrap_or(SystemTime::UNIX_EPOCH) })
}

/// What is tagged with `tag` there.
fn explicit<'a>(object: &DerObject<'a>, tag: u32) -> Option<DerObject<'a>> {
    match &object.content {
        DerObjectContent::Unknown(any) if any.tag().0 == tag => parse_der(any.data).ok().map(|(_, inner)| inner),
        _ => None,
    }
}

fn moment(time: &DerObject<'_>) -> Option<SystemTime> {
    let DerObjectContent::GeneralizedTime(time) = &time.content else { return None };
    let seconds = GeneralizedTime::new(time.clone()).utc_datetime().ok()?.unix_timestamp();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}
