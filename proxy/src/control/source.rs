//! Discovery responses from files and REST: documents in, messages out.

use std::path::Path;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use prost::Message;
use xds_client::RestCodec;
use xds_client::proto::{Format, JsonOptions, LoadOptions, UnknownFields, load, to_json};

const RESPONSE: &str = "envoy.service.discovery.v3.DiscoveryResponse";
const REQUEST: &str = "envoy.service.discovery.v3.DiscoveryRequest";

/// Reads a `DiscoveryResponse` from a file's content; its extension tells the format.
///
/// # Errors
/// What is wrong with it, with file, line and field.
pub fn decode_file(path: &Path, content: &[u8]) -> Result<DiscoveryResponse, String> {
    decode(content, Format::of_path(path), &path.display().to_string())
}

fn decode(content: &[u8], format: Format, source: &str) -> Result<DiscoveryResponse, String> {
    // Unknown fields of resources are judged where the resources are.
    let options = LoadOptions { source, unknown_fields: UnknownFields::Warn };
    load(content, format, RESPONSE, &options).and_then(|document| document.decode()).map_err(|error| error.to_string())
}

/// Bodies of REST discovery: proto3 JSON.
pub struct Rest;

impl RestCodec for Rest {
    fn encode(&self, request: &DiscoveryRequest) -> Result<Bytes, String> {
        let options = JsonOptions { redact: false, ..JsonOptions::default() };
        to_json(REQUEST, &request.encode_to_vec(), &options)
            .map(|json| json.to_string().into())
            .map_err(|error| error.to_string())
    }

    fn decode(&self, body: &[u8]) -> Result<DiscoveryResponse, String> {
        decode(body, Format::Json, "response")
    }
}
