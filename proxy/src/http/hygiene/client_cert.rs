//! `x-forwarded-client-cert`: what upstreams are told of the client's certificate, and of those of clients further away.
//!
//! One element of the header tells of one hop: keys and values in Envoy's text form, `By=…;Hash=…;Subject="…"`, or a JSON
//! object in an array. A connection's own element never changes, so it is made for the first request that needs it.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use filters::http::{Headers, Known};
use filters::stream_info::ConnectionInfo;
use filters::tls::{Certificate, CertificateFacts, TlsInfo};
use serde_json::{Map, Value};

/// `forward_client_cert_details` and `set_current_client_cert_details`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ForwardClientCert {
    /// What becomes of the header.
    pub mode: ClientCertMode,
    /// What this hop's element says.
    pub details: ClientCertDetails,
}

/// `forward_client_cert_details`. But for the last, a connection without a client certificate loses the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertMode {
    /// Removed.
    #[default]
    Sanitize,
    /// As it came.
    ForwardOnly,
    /// As it came, with this hop's element behind.
    AppendForward,
    /// This hop's element alone.
    SanitizeSet,
    /// As it came, whoever the client is.
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`: what an element says besides `By` and `Hash`.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the message")]
pub struct ClientCertDetails {
    /// The subject.
    pub subject: bool,
    /// The certificate.
    pub cert: bool,
    /// All that the client presented.
    pub chain: bool,
    /// DNS names.
    pub dns: bool,
    /// URIs.
    pub uri: bool,
    /// The issuer.
    pub issuer: bool,
    /// As JSON, where there is no header yet whose form is kept.
    pub json: bool,
}

/// A connection's element in both forms, once somebody needed it.
#[derive(Debug, Clone, Default)]
pub(super) struct Elements {
    text: OnceCell<Bytes>,
    json: OnceCell<Bytes>,
}

impl ForwardClientCert {
    /// Whether a header that came on this connection stays, for now.
    pub(super) fn passes(&self, connection: &ConnectionInfo) -> bool {
        match self.mode {
            ClientCertMode::Sanitize => false,
            ClientCertMode::AlwaysForwardOnly => true,
            _ => session(connection).is_some(),
        }
    }

    /// Adds this hop's element.
    pub(super) fn add(&self, headers: &mut Headers, connection: &ConnectionInfo, elements: &Elements) {
        if !matches!(self.mode, ClientCertMode::AppendForward | ClientCertMode::SanitizeSet) {
            return;
        }
        let Some((session, client)) = session(connection) else { return };
        let given = match self.mode {
            ClientCertMode::AppendForward => headers.value(&Known::XForwardedClientCert).filter(|it| !it.is_empty()),
            _ => None,
        };
        let value = match given.map(|given| (&given[..], given.strip_suffix(b"]"))) {
            None if self.details.json => [b"[", &**self.json(session, client, elements), b"]"].concat().into(),
            None => self.text(session, client, elements).clone(),
            // An array goes on; what is in it is its sender's concern.
            Some(([b'[', ..], Some(open))) => {
                [open, b",", &**self.json(session, client, elements), b"]"].concat().into()
            }
            Some((given, _)) => [given, b",", &**self.text(session, client, elements)].concat().into(),
        };
        headers.set(Known::XForwardedClientCert, value);
    }

    fn text<'a>(&self, session: &TlsInfo, client: &CertificateFacts, elements: &'a Elements) -> &'a Bytes {
        elements.text.get_or_init(|| self.details.text(session, client).into())
    }

    fn json<'a>(&self, session: &TlsInfo, client: &CertificateFacts, elements: &'a Elements) -> &'a Bytes {
        elements.json.get_or_init(|| Value::Object(self.details.json(session, client)).to_string().into())
    }
}

/// The session of a connection whose client presented a certificate, and what that says.
fn session(connection: &ConnectionInfo) -> Option<(&TlsInfo, &CertificateFacts)> {
    let session = connection.tls.get()?;
    Some((session, session.peer_certificate()?))
}

impl ClientCertDetails {
    fn text(self, session: &TlsInfo, client: &CertificateFacts) -> String {
        let mut pairs = Vec::new();
        let local = session.local_certificate();
        pairs.extend(local.into_iter().flat_map(|local| &local.uri_sans).map(|uri| format!("By={uri}")));
        pairs.push(format!("Hash={}", client.sha256));
        let pem =
            |certificates: &[Arc<Certificate>]| certificates.iter().map(|it| it.encoded_pem()).collect::<String>();
        if self.cert {
            pairs.push(format!("Cert=\"{}\"", pem(&session.peer[..1])));
        }
        if self.chain {
            pairs.push(format!("Chain=\"{}\"", pem(&session.peer)));
        }
        if self.subject {
            pairs.push(format!("Subject=\"{}\"", client.subject));
        }
        if self.uri && client.uri_sans.is_empty() {
            pairs.push("URI=".to_owned());
        } else if self.uri {
            pairs.extend(client.uri_sans.iter().map(|uri| format!("URI={uri}")));
        }
        if self.dns {
            pairs.extend(client.dns_sans.iter().map(|dns| format!("DNS={dns}")));
        }
        if self.issuer {
            pairs.push(format!("Issuer=\"{}\"", client.issuer));
        }
        pairs.join(";")
    }

    /// What is empty is left out.
    fn json(self, session: &TlsInfo, client: &CertificateFacts) -> Map<String, Value> {
        let texts = |wanted: bool, texts: &[String]| wanted.then(|| Value::from(texts.to_vec()));
        let text = |wanted: bool, text: &str| wanted.then(|| Value::from(text));
        let chain: Vec<_> = session.peer.iter().filter(|_| self.cert || self.chain).map(|it| it.pem()).collect();
        let by = session.local_certificate().map(|local| &local.uri_sans[..]).unwrap_or_default();
        let members = [
            ("by", texts(true, by)),
            ("hash", text(true, &client.sha256)),
            ("cert", text(self.cert, chain.first().map(String::as_str).unwrap_or_default())),
            ("chain", texts(self.chain, &chain)),
            ("subject", text(self.subject, &client.subject)),
            ("uri", texts(self.uri, &client.uri_sans)),
            ("dns", texts(self.dns, &client.dns_sans)),
            ("issuer", text(self.issuer, &client.issuer)),
        ];
        let full = |value: &Value| value.as_str() != Some("") && value.as_array().is_none_or(|it| !it.is_empty());
        let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.filter(full)?)));
        members.collect()
    }
}

#[cfg(test)]
mod tests {
    use filters::stream_info::Address;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(name: &str, uris: &[&str], dns: &[&str]) -> Arc<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if !name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        let dns = dns.iter().map(|name| SanType::DnsName((*name).try_into().expect("ASCII")));
        params.subject_alt_names = uris.chain(dns).collect();
        let key = KeyPair::generate().expect("key");
        Arc::new(Certificate::new(params.self_signed(&key).expect("certificate").der().to_vec()))
    }

    fn connection(peer: &[Arc<Certificate>]) -> ConnectionInfo {
        let address = || Address::Ip("127.0.0.1:1".parse().expect("address"));
        let connection = ConnectionInfo::between(address(), address());
        let local = Some(certificate("server", &["spiffe://td/a", "spiffe://td/b"], &[]));
        connection.tls.set(TlsInfo { peer: peer.to_vec(), local, ..TlsInfo::default() }).expect("empty");
        connection
    }

    fn run(
        mode: ClientCertMode,
        details: ClientCertDetails,
        connection: &ConnectionInfo,
        given: Option<&str>,
    ) -> Option<String> {
        let mut headers = Headers::default();
        let this = ForwardClientCert { mode, details };
        if let Some(given) = given.filter(|_| this.passes(connection)) {
            headers.append(Known::XForwardedClientCert, given.to_owned());
        }
        this.add(&mut headers, connection, &Elements::default());
        headers.value(&Known::XForwardedClientCert).map(|value| String::from_utf8(value.to_vec()).expect("text"))
    }

    #[test]
    fn modes_and_clients() {
        use ClientCertMode::{AlwaysForwardOnly, AppendForward, ForwardOnly, Sanitize, SanitizeSet};
        let client = certificate("client", &[], &[]);
        let own = format!("By=spiffe://td/a;By=spiffe://td/b;Hash={}", client.facts().sha256);
        let both = format!("By=x,{own}");
        let (anonymous, known) = (connection(&[]), connection(&[client]));
        for (mode, without, with_none, with) in [
            (Sanitize, None, None, None),
            (ForwardOnly, None, None, Some("By=x")),
            (AppendForward, None, Some(&*own), Some(&*both)),
            (SanitizeSet, None, Some(&*own), Some(&*own)),
            (AlwaysForwardOnly, Some("By=x"), None, Some("By=x")),
        ] {
            let run = |connection, given| run(mode, ClientCertDetails::default(), connection, given);
            assert_eq!(run(&anonymous, Some("By=x")).as_deref(), without, "{mode:?}");
            assert_eq!(run(&known, None).as_deref(), with_none, "{mode:?}");
            assert_eq!(run(&known, Some("By=x")).as_deref(), with, "{mode:?}");
        }
    }

    const ALL: ClientCertDetails =
        ClientCertDetails { subject: true, cert: true, chain: true, dns: true, uri: true, issuer: true, json: false };

    #[test]
    fn all_details_in_their_order() {
        let (client, second) = (certificate("c", &["u:1", "u:2"], &["d1", "d2"]), certificate("ca", &[], &[]));
        let hash = &client.facts().sha256;
        let (pem, next) = (client.encoded_pem(), second.encoded_pem());
        let known = connection(&[Arc::clone(&client), second]);
        let text = run(ClientCertMode::SanitizeSet, ALL, &known, None).expect("set");
        assert_eq!(
            text,
            format!(
                "By=spiffe://td/a;By=spiffe://td/b;Hash={hash};Cert=\"{pem}\";Chain=\"{pem}{next}\";Subject=\"CN=c\";\
                 URI=u:1;URI=u:2;DNS=d1;DNS=d2;Issuer=\"CN=c\""
            )
        );
        let json =
            run(ClientCertMode::SanitizeSet, ClientCertDetails { json: true, ..ALL }, &known, None).expect("set");
        let names = ["[{\"by\":[", "\"hash\":", "\"cert\":", "\"chain\":[", "\"subject\":", "\"uri\":[", "\"dns\":["];
        let at: Vec<_> = names.iter().map(|name| json.find(name).expect(name)).collect();
        assert!(at.is_sorted() && json.ends_with(r#""issuer":"CN=c"}]"#), "{json}");
    }

    #[test]
    fn what_a_certificate_does_not_say() {
        let nobody = certificate("", &[], &[]);
        let hash = &nobody.facts().sha256;
        let details = ClientCertDetails { cert: false, chain: false, issuer: false, ..ALL };
        let known = connection(std::slice::from_ref(&nobody));
        let by = "By=spiffe://td/a;By=spiffe://td/b";
        let set = |details| run(ClientCertMode::SanitizeSet, details, &known, None).expect("set");
        assert_eq!(set(details), format!("{by};Hash={hash};Subject=\"\";URI="));
        let by = r#""by":["spiffe://td/a","spiffe://td/b"]"#;
        assert_eq!(set(ClientCertDetails { json: true, ..details }), format!("[{{{by},\"hash\":\"{hash}\"}}]"));
    }

    #[test]
    fn a_header_keeps_its_form() {
        let client = certificate("c", &[], &[]);
        let hash = client.facts().sha256.clone();
        let known = connection(&[client]);
        let text = format!("By=spiffe://td/a;By=spiffe://td/b;Hash={hash}");
        let json = format!(r#"{{"by":["spiffe://td/a","spiffe://td/b"],"hash":"{hash}"}}"#);
        for (given, configured_json, expected) in [
            ("[]", false, format!("[,{json}]")),
            (r#"[{"a":1}]"#, false, format!(r#"[{{"a":1}},{json}]"#)),
            ("[", true, format!("[,{text}")),
            ("By=x", true, format!("By=x,{text}")),
            ("", true, format!("[{json}]")),
            ("", false, text),
        ] {
            let details = ClientCertDetails { json: configured_json, ..ClientCertDetails::default() };
            assert_eq!(run(ClientCertMode::AppendForward, details, &known, Some(given)), Some(expected), "{given}");
        }
    }
}
