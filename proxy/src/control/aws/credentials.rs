//! Where AWS's credentials are found: the environment, a web identity, the container's agent, the instance's metadata.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::super::web::{self, Url};

/// Where variables are found: the process's, or a test's.
type Environment = Box<dyn Fn(&str) -> Option<String>>;

/// Credentials are fetched anew when they are about to expire.
const EARLY: Duration = Duration::from_secs(300);

/// A key, and until when it is good.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
    pub(super) expires: Option<SystemTime>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

/// Finds credentials, and keeps them while they are good.
pub(super) struct Provider {
    /// The environment.
    env: Environment,
    /// Where the container's agent and the instance's metadata are.
    agent: &'static str,
    instance: &'static str,
    current: RefCell<Option<Credentials>>,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            env: Box::new(|name| std::env::var(name).ok()),
            agent: "http://169.254.170.2",
            instance: "http://169.254.169.254",
            current: RefCell::default(),
        }
    }
}

/// What the container's agent and the instance's metadata answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

/// What the security token service answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AssumedRole {
    assume_role_with_web_identity_response: RoleResponse,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleResponse {
    assume_role_with_web_identity_result: RoleResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleResult {
    credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    /// Seconds since 1970.
    expiration: f64,
}

impl Provider {
    /// `AWS_REGION`, or `AWS_DEFAULT_REGION`.
    pub(super) fn region(&self) -> Option<String> {
        self.variable("AWS_REGION").or_else(|| self.variable("AWS_DEFAULT_REGION"))
    }

    /// Credentials that are good now.
    pub(super) async fn current(&self) -> Result<Credentials, String> {
        let kept = self.current.borrow().clone();
        if let Some(kept) = kept
            && kept.expires.is_none_or(|expires| expires > SystemTime::now() + EARLY)
        {
            return Ok(kept);
        }
        let found = self.find().await?;
        // A key of the environment never expires and is as quickly found again.
        *self.current.borrow_mut() = Some(found.clone()).filter(|found| found.expires.is_some());
        Ok(found)
    }

    async fn find(&self) -> Result<Credentials, String> {
        if let (Some(access_key_id), Some(secret_access_key)) =
            (self.variable("AWS_ACCESS_KEY_ID"), self.variable("AWS_SECRET_ACCESS_KEY"))
        {
            let session_token = self.variable("AWS_SESSION_TOKEN");
            return Ok(Credentials { access_key_id, secret_access_key, session_token, expires: None });
        }
        if let (Some(role), Some(file)) = (self.variable("AWS_ROLE_ARN"), self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"))
        {
            return self.web_identity(&role, &file).await.map_err(|reason| format!("web identity: {reason}"));
        }
        if let Some(path) = self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            let url = format!("{}{path}", self.agent);
            return self.document(&url, &[]).await.map_err(|reason| format!("container credentials: {reason}"));
        }
        if let Some(url) = self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
            return self.container(&url).await.map_err(|reason| format!("container credentials: {reason}"));
        }
        if self.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err("no AWS credentials: neither a key, a web identity nor a container's URI is in the \
                        environment, and AWS_EC2_METADATA_DISABLED is set"
                .to_owned());
        }
        self.instance()
            .await
            .map_err(|reason| format!("no AWS credentials in the environment, and none of the instance: {reason}"))
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// A role, for a token of whoever knows this process.
    async fn web_identity(&self, role: &str, file: &str) -> Result<Credentials, String> {
        let token = read(file)?;
        let endpoint = self.variable("AWS_ENDPOINT_URL_STS").unwrap_or_else(|| match self.region() {
            Some(region) => format!("https://sts.{region}.amazonaws.com"),
            None => "https://sts.amazonaws.com".to_owned(),
        });
        let session =
            self.variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| format!("legate-{}", std::process::id()));
        let encode =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let url = format!(
            "{}/?Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName={}&RoleArn={}&WebIdentityToken={}",
            endpoint.trim_end_matches('/'),
            encode(&session),
            encode(role),
            encode(&token),
        );
        let body = web::fetch("GET", &Url::parse(&url)?, &[("accept", "application/json")]).await?;
        let role: AssumedRole = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        let found = role.assume_role_with_web_identity_response.assume_role_with_web_identity_result.credentials;
        let expires = Duration::try_from_secs_f64(found.expiration).map_err(|error| error.to_string())?;
        Ok(Credentials {
            access_key_id: found.access_key_id,
            secret_access_key: found.secret_access_key,
            session_token: Some(found.session_token),
            expires: Some(SystemTime::UNIX_EPOCH + expires),
        })
    }

    /// An agent anywhere, which may want to know who asks.
    async fn container(&self, url: &str) -> Result<Credentials, String> {
        let token = match self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(read(&file)?),
            None => self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        let headers: Vec<_> = token.iter().map(|token| ("authorization", token.as_str())).collect();
        self.document(url, &headers).await
    }

    /// The instance's role, by the second version of the metadata service.
    async fn instance(&self) -> Result<Credentials, String> {
        let base = format!("{}/latest", self.instance);
        let wanted = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        let token = text(web::fetch("PUT", &Url::parse(&format!("{base}/api/token"))?, &[wanted]).await?)?;
        let token = [("x-aws-ec2-metadata-token", token.as_str())];
        let roles = format!("{base}/meta-data/iam/security-credentials/");
        let role = text(web::fetch("GET", &Url::parse(&roles)?, &token).await?)?;
        let role = role.lines().next().unwrap_or_default().trim().to_owned();
        self.document(&format!("{roles}{role}"), &token).await
    }

    async fn document(&self, url: &str, headers: &[(&str, &str)]) -> Result<Credentials, String> {
        let body = web::fetch("GET", &Url::parse(url)?, headers).await?;
        let found: Document = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        let expires = chrono::DateTime::parse_from_rfc3339(&found.expiration)
            .map_err(|error| format!("Expiration {:?}: {error}", found.expiration))?;
        Ok(Credentials {
            access_key_id: found.access_key_id,
            secret_access_key: found.secret_access_key,
            session_token: Some(found.token).filter(|token| !token.is_empty()),
            expires: Some(expires.into()),
        })
    }
}

/// What is wrong with an answer, without any of it.
fn unreadable(error: &serde_json::Error) -> String {
    format!("the answer does not parse (line {}, column {})", error.line(), error.column())
}

fn text(body: bytes::Bytes) -> Result<String, String> {
    String::from_utf8(body.to_vec()).map_err(|_| "the answer is no text".to_owned())
}

fn read(file: &str) -> Result<String, String> {
    std::fs::read_to_string(file).map(|text| text.trim().to_owned()).map_err(|error| format!("{file}: {error}"))
}

#[cfg(test)]
mod tests;
