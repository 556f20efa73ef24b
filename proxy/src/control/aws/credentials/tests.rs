use std::collections::HashMap;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A server that gives each request, by the beginning of its first line, its answer; and what it was asked.
async fn server(answers: &'static [(&'static str, &'static str)]) -> (String, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let request = String::from_utf8(request).unwrap();
            let answer = answers.iter().find(|(begin, _)| request.starts_with(begin));
            let answer = match answer {
                Some((_, body)) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                None => "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned(),
            };
            heard.borrow_mut().push(request);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

fn provider(at: &str, variables: &[(&str, &str)]) -> Provider {
    let variables: HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let at: &'static str = at.to_owned().leak();
    Provider {
        env: Box::new(move |name| variables.get(name).cloned()),
        agent: at,
        instance: at,
        current: RefCell::default(),
    }
}

async fn local<T>(test: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(test).await
}

const DOCUMENT: &str = r#"{"AccessKeyId":"ID","SecretAccessKey":"SECRET","Token":"TOKEN","Expiration":"2100-01-01T00:00:00Z","RoleArn":"r"}"#;

fn known(found: &Credentials) -> (&str, &str, Option<&str>) {
    (&found.access_key_id, &found.secret_access_key, found.session_token.as_deref())
}

#[tokio::test]
async fn a_key_of_the_environment_comes_first() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "ID"),
        ("AWS_SECRET_ACCESS_KEY", "SECRET"),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x"),
    ];
    let found = local(provider("http://127.0.0.1:1", &variables).current()).await.unwrap();
    assert_eq!(known(&found), ("ID", "SECRET", None));
    assert!(!format!("{found:?}").contains("SECRET"));
}

#[tokio::test]
async fn a_container_asks_its_agent_once() {
    local(async {
        let (at, asked) = server(&[("GET /role ", DOCUMENT)]).await;
        let provider = provider(&at, &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/role")]);
        for _ in 0..2 {
            assert_eq!(known(&provider.current().await.unwrap()), ("ID", "SECRET", Some("TOKEN")));
        }
        assert_eq!(asked.borrow().len(), 1, "they are good for long");
    })
    .await;
}

#[tokio::test]
async fn an_agent_elsewhere_learns_who_asks() {
    local(async {
        let (at, asked) = server(&[("GET /full ", DOCUMENT)]).await;
        let url = format!("{at}/full");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from file\n").unwrap();
        let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str());
        let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "in person");
        provider(&at, &[full, token]).current().await.unwrap();
        let file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.path().to_str().unwrap());
        provider(&at, &[full, token, file]).current().await.unwrap();
        assert!(asked.borrow()[0].contains("authorization: in person\r\n"));
        assert!(asked.borrow()[1].contains("authorization: from file\r\n"), "the file comes first");
    })
    .await;
}

#[tokio::test]
async fn a_web_identity_takes_a_role() {
    local(async {
        const ANSWER: &str = r#"{"AssumeRoleWithWebIdentityResponse":{"AssumeRoleWithWebIdentityResult":{"Credentials":
            {"AccessKeyId":"ID","SecretAccessKey":"SECRET","SessionToken":"TOKEN","Expiration":4.1e9}}}}"#;
        let (at, asked) = server(&[("GET /?Action=AssumeRoleWithWebIdentity&", ANSWER)]).await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a.b+c\n").unwrap();
        let variables = [
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file.path().to_str().unwrap()),
            ("AWS_ENDPOINT_URL_STS", at.as_str()),
            ("AWS_ROLE_SESSION_NAME", "me"),
        ];
        let found = provider(&at, &variables).current().await.unwrap();
        assert_eq!(known(&found), ("ID", "SECRET", Some("TOKEN")));
        let asked = asked.borrow()[0].clone();
        assert!(asked.contains("&RoleSessionName=me&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&"), "{asked}");
        assert!(asked.contains("WebIdentityToken=a%2Eb%2Bc "), "{asked}");
    })
    .await;
}

#[tokio::test]
async fn an_instance_has_a_role() {
    local(async {
        let (at, asked) = server(&[
            ("PUT /latest/api/token ", "ticket"),
            ("GET /latest/meta-data/iam/security-credentials/ ", "role\n"),
            ("GET /latest/meta-data/iam/security-credentials/role ", DOCUMENT),
        ])
        .await;
        assert_eq!(known(&provider(&at, &[]).current().await.unwrap()), ("ID", "SECRET", Some("TOKEN")));
        assert!(asked.borrow()[2].contains("x-aws-ec2-metadata-token: ticket\r\n"));
        let disabled = provider(&at, &[("AWS_EC2_METADATA_DISABLED", "true")]).current().await.unwrap_err();
        assert!(disabled.contains("no AWS credentials"), "{disabled}");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_said_without_secrets() {
    local(async {
        let (at, _) = server(&[("GET /garbage ", r#"{"AccessKeyId":"ID","SecretAccessKey":5}"#)]).await;
        let of = |path| provider(&at, &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", path)]);
        let refused = of("/refused").current().await.unwrap_err();
        assert!(refused.starts_with("container credentials: 127.0.0.1:") && refused.contains("403"), "{refused}");
        let garbage = of("/garbage").current().await.unwrap_err();
        assert!(garbage.contains("does not parse") && !garbage.contains("ID"), "{garbage}");
        let variables = [("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token")];
        let missing = provider(&at, &variables).current().await.unwrap_err();
        assert!(missing.starts_with("web identity: /nowhere/token: "), "{missing}");
    })
    .await;
}
