//! Calls to AWS's control planes are signed (`envoy.grpc_credentials.aws_iam`): Signature Version 4, with credentials from
//! where AWS's libraries look for them.

mod credentials;
mod sigv4;

use std::time::SystemTime;

use self::credentials::Provider;
use self::sigv4::{Request, Scope};

/// SHA-256 of nothing: a stream has no body that could be signed, and Envoy signs an empty one.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Signs calls with the credentials of this process.
#[derive(Default)]
pub(super) struct Signer {
    provider: Provider,
}

impl Signer {
    /// The metadata of a call to `authority`, made now.
    ///
    /// # Errors
    /// Why there are no credentials, and where they were looked for.
    pub(super) async fn metadata(
        &self,
        service: &str,
        region: &str,
        authority: &str,
        path: &str,
    ) -> Result<Vec<(String, String)>, String> {
        let region = match region {
            "" => self.provider.region().ok_or("no AWS region: neither in the configuration nor in AWS_REGION")?,
            region => region.to_owned(),
        };
        let credentials = self.provider.current().await?;
        // The port that https has anyway is no part of what is signed, as in Google's library.
        let host = authority.strip_suffix(":443").unwrap_or(authority);
        let request = Request { method: "POST", host, path, query: "", content: EMPTY };
        let scope = Scope { region: &region, service, time: SystemTime::now() };
        let content = ("x-amz-content-sha256".to_owned(), EMPTY.to_owned());
        Ok(sigv4::sign(&request, vec![content], &credentials, &scope))
    }
}
