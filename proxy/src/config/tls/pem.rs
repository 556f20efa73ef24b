//! PEM (RFC 7468) as Envoy's TLS library reads it: whatever stands between blocks is passed over, and a block that was begun
//! has to be right.

use base64::Engine as _;

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// What follows `BEGIN`: `CERTIFICATE`.
    pub(super) label: &'a str,
    /// Headers as RFC 1421 has them (`DEK-Info`), as they stand.
    pub(super) headers: Vec<(&'a str, &'a str)>,
    /// The data.
    pub(super) der: Vec<u8>,
}

impl Block<'_> {
    /// Whether it is a certificate, under any of the names there are.
    pub(super) fn is_certificate(&self) -> bool {
        matches!(self.label, "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE")
    }

    /// The certificate: what a trusted one says besides is left off.
    pub(super) fn certificate(self) -> Option<Vec<u8>> {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let (rest, _) = X509Certificate::from_der(&self.der).ok()?;
        let length = self.der.len() - rest.len();
        let mut der = self.der;
        let whole = length == der.len() || self.label == "TRUSTED CERTIFICATE";
        der.truncate(length);
        whole.then_some(der)
    }
}

/// What is wrong with a block that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// It does not end, or as another.
    #[error("a PEM block does not end")]
    End,
    /// Its data is not base64.
    #[error("a PEM block is not base64")]
    Data,
}

/// The blocks of `data`, in order. What is not text has none.
pub(super) fn blocks(data: &[u8]) -> Blocks<'_> {
    Blocks { rest: data }
}

/// See [`blocks`].
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
}

impl<'a> Blocks<'a> {
    fn line(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest);
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &self.rest[self.rest.len()..]),
        };
        self.rest = rest;
        Some(line.trim_ascii_end())
    }

    fn block(&mut self, label: &'a str) -> Result<Block<'a>, Broken> {
        let mut headers = Vec::new();
        let mut text = Vec::new();
        let mut in_headers = true;
        loop {
            let line = self.line().ok_or(Broken::End)?;
            if let Some(end) = line.strip_prefix(b"-----END ") {
                if end.strip_suffix(b"-----") != Some(label.as_bytes()) {
                    return Err(Broken::End);
                }
                break;
            }
            match std::str::from_utf8(line).ok().and_then(|line| line.split_once(':')) {
                Some((name, value)) if in_headers => headers.push((name, value.trim())),
                _ => {
                    in_headers = false;
                    text.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
                }
            }
        }
        let der = base64::engine::general_purpose::STANDARD.decode(&text).map_err(|_| Broken::Data)?;
        Ok(Block { label, headers, der })
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<Block<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.line()?;
            let label = line.strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----"));
            if let Some(label) = label.and_then(|label| std::str::from_utf8(label).ok()) {
                return Some(self.block(label).inspect_err(|_| self.rest = &[]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<Result<(String, Vec<u8>), Broken>> {
        blocks(text.as_bytes()).map(|block| block.map(|block| (block.label.to_owned(), block.der))).collect()
    }

    #[test]
    fn blocks_by_table() {
        let block = |label: &str, data: &str| format!("-----BEGIN {label}-----\n{data}\n-----END {label}-----\n");
        let ok = |label: &str| Ok((label.to_owned(), vec![0, 0, 0]));
        let a = block("A", "AAAA");
        for (text, expected) in [
            (String::new(), vec![]),
            ("junk".to_owned(), vec![]),
            (a.clone(), vec![ok("A")]),
            (a.trim_end().to_owned(), vec![ok("A")]),
            (a.replace('\n', "\r\n"), vec![ok("A")]),
            (format!("junk\n{a}junk\n{}-----BEG", block("B C", "AA\nAA")), vec![ok("A"), ok("B C")]),
            // Only what begins at the start of a line begins.
            (format!(" {a}"), vec![]),
            // A broken block ends everything.
            (format!("{a}{}{a}", block("A", "A!AA")), vec![ok("A"), Err(Broken::Data)]),
            (format!("{a}-----BEGIN A-----\nAAAA\n"), vec![ok("A"), Err(Broken::End)]),
            ("-----BEGIN A-----\nAAAA\n-----END B-----\n".to_owned(), vec![Err(Broken::End)]),
        ] {
            assert_eq!(labels(&text), expected, "{text}");
        }
    }

    #[test]
    fn headers_are_told_from_data() {
        let text = "-----BEGIN K-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END K-----\n";
        let block = blocks(text.as_bytes()).next().unwrap().unwrap();
        assert_eq!(block.headers, [("Proc-Type", "4,ENCRYPTED"), ("DEK-Info", "AES-128-CBC,00")]);
        assert_eq!(block.der, [0, 0, 0]);
    }
}
