//! Format strings of configuration: parsed or refused with a reason, and what was parsed can be written.
#![no_main]

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use filters::format::{Format, FormatContext, FormatOptions, parse_header_value};
use filters::stream_info::{Address, ConnectionInfo, StreamInfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let unnamed = || Address::Pipe("".into());
    let connection = Rc::new(ConnectionInfo::between(unnamed(), unnamed()));
    let info = StreamInfo::new(connection, Instant::now(), SystemTime::now(), 1);
    match Format::parse(text, &FormatOptions::default()) {
        Ok(format) => {
            format.append_to(&mut Vec::new(), &FormatContext::new(&info));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    if let Err(reason) = parse_header_value(text) {
        assert!(!reason.is_empty());
    }
});
