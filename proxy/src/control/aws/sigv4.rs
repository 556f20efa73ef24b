//! AWS Signature Version 4, as far as it is needed: headers, not query strings.

use std::fmt::Write as _;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use filters::tls::hex;

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    /// Percent-encoded as the service gets it.
    pub(super) path: &'a str,
    /// Sorted and percent-encoded.
    pub(super) query: &'a str,
    /// SHA-256 of the body, in hexadecimal.
    pub(super) content: &'a str,
}

/// What a signature is good for.
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: SystemTime,
}

/// The headers that have to be added to a request, `headers` among them.
pub(super) fn sign(
    request: &Request<'_>,
    mut headers: Vec<(String, String)>,
    credentials: &Credentials,
    scope: &Scope<'_>,
) -> Vec<(String, String)> {
    let time = chrono::DateTime::<chrono::Utc>::from(scope.time).format("%Y%m%dT%H%M%SZ").to_string();
    let date = time.get(..8).unwrap_or_default();
    headers.push(("x-amz-date".to_owned(), time.clone()));
    if let Some(token) = &credentials.session_token {
        headers.push(("x-amz-security-token".to_owned(), token.clone()));
    }
    let (canonical, signed) = canonical(request, &headers);
    let credential_scope = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign =
        format!("{ALGORITHM}\n{time}\n{credential_scope}\n{}", hex(digest(&SHA256, canonical.as_bytes()).as_ref()));
    let key = key(&credentials.secret_access_key, date, scope);
    let signature = hex(hmac(key.as_ref(), &to_sign).as_ref());
    let id = &credentials.access_key_id;
    let authorization =
        format!("{ALGORITHM} Credential={id}/{credential_scope}, SignedHeaders={signed}, Signature={signature}");
    headers.push(("authorization".to_owned(), authorization));
    headers
}

/// The request in the one form that both sides make of it, and the names of the headers that are signed.
fn canonical(request: &Request<'_>, headers: &[(String, String)]) -> (String, String) {
    let host = ("host".to_owned(), request.host.to_owned());
    let mut all: Vec<_> = headers.iter().chain([&host]).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let lines: String = all.iter().fold(String::new(), |mut lines, (name, value)| {
        let words: Vec<_> = value.split_ascii_whitespace().collect();
        let _ = writeln!(lines, "{name}:{}", words.join(" "));
        lines
    });
    let signed = all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let Request { method, path, query, content, .. } = request;
    (format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{content}"), signed)
}

fn key(secret: &str, date: &str, scope: &Scope<'_>) -> hmac::Tag {
    let first = hmac(format!("AWS4{secret}").as_bytes(), date);
    [scope.region, scope.service, "aws4_request"].iter().fold(first, |key, part| hmac(key.as_ref(), part))
}

fn hmac(key: &[u8], data: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 2015-08-30T12:36:00Z, the moment of AWS's test suite.
    const MOMENT: u64 = 1_440_938_160;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn signature(
        request: &Request<'_>,
        headers: &[(&str, &str)],
        token: Option<&str>,
        service: &str,
    ) -> (String, Vec<(String, String)>) {
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: token.map(str::to_owned),
            expires: None,
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(MOMENT);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let signed = sign(request, headers, &credentials, &Scope { region: "us-east-1", service, time });
        let authorization = signed.iter().find(|(name, _)| name == "authorization").unwrap().1.clone();
        (authorization, signed)
    }

    #[test]
    fn the_published_test_suite_agrees() {
        let get = |method| Request { method, host: "example.amazonaws.com", path: "/", query: "", content: EMPTY };
        let (vanilla, _) = signature(&get("GET"), &[], None, "service");
        assert_eq!(
            vanilla,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        let (post, _) = signature(&get("POST"), &[], None, "service");
        assert!(post.ends_with("Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"), "{post}");
    }

    #[test]
    fn the_documented_example_agrees() {
        let request = Request {
            method: "GET",
            host: "iam.amazonaws.com",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            content: EMPTY,
        };
        let content_type = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        let (authorization, _) = signature(&request, &[content_type], None, "iam");
        assert!(authorization.contains("SignedHeaders=content-type;host;x-amz-date,"), "{authorization}");
        assert!(
            authorization.ends_with("Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"),
            "{authorization}"
        );
    }

    #[test]
    fn a_session_token_is_sent_and_signed() {
        let request = Request { method: "POST", host: "h", path: "/p", query: "", content: EMPTY };
        let (with, headers) = signature(&request, &[], Some("token"), "appmesh");
        assert!(with.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"), "{with}");
        assert!(headers.contains(&("x-amz-security-token".to_owned(), "token".to_owned())));
        assert_ne!(with, signature(&request, &[], Some("other"), "appmesh").0);
    }
}
