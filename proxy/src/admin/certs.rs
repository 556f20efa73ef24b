//! `/certs`: the certificates of TLS contexts in use.

use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use filters::tls::Certificate;
use serde_json::{Map, Value, json};

use crate::control::secrets::{ContextView, days_until};

/// The page.
pub(super) fn json(contexts: &[ContextView], now: SystemTime) -> Value {
    let context = |view: &ContextView| {
        let list = |certificates: &[(String, Arc<Certificate>)]| -> Vec<Value> {
            certificates.iter().map(|(path, certificate)| details(path, certificate, now)).collect()
        };
        json!({"ca_cert": list(&view.authorities), "cert_chain": list(&view.own)})
    };
    json!({"certificates": contexts.iter().map(context).collect::<Vec<_>>()})
}

fn details(path: &str, certificate: &Certificate, now: SystemTime) -> Value {
    let facts = certificate.facts();
    let dns = facts.dns_sans.iter().map(|name| json!({"dns": name}));
    let uris = facts.uri_sans.iter().map(|name| json!({"uri": name}));
    let addresses = facts.ip_sans.iter().map(|address| json!({"ip_address": address.to_string()}));
    let names: Vec<_> = dns.chain(uris).chain(addresses).collect();
    let mut out = Map::from_iter([
        ("path".to_owned(), path.into()),
        ("serial_number".to_owned(), facts.serial.as_str().into()),
        ("subject_alt_names".to_owned(), names.into()),
        ("days_until_expiration".to_owned(), days_until(certificate, now).to_string().into()),
    ]);
    for (field, time) in [("valid_from", facts.not_before), ("expiration_time", facts.not_after)] {
        if let Some(time) = time {
            out.insert(field.to_owned(), DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true).into());
        }
    }
    Value::Object(out)
}
