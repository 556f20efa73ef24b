//! Documents in YAML and JSON: read or refused with a place, in bounded time and memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xds_client::proto::{CheckOptions, Format, LoadOptions, UnknownFields, check, load};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

fuzz_target!(|input: &[u8]| {
    for format in [Format::Yaml, Format::Json] {
        let options = LoadOptions { source: "fuzz", unknown_fields: UnknownFields::Warn };
        match load(input, format, BOOTSTRAP, &options) {
            Ok(document) => {
                let options = CheckOptions { unknown_fields: UnknownFields::Warn, validate: true };
                let _ = check(BOOTSTRAP, document.bytes(), &options);
            }
            Err(diagnostics) => assert!(!diagnostics.0.is_empty()),
        }
    }
});
