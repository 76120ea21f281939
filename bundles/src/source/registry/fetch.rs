// SPDX-License-Identifier: Apache-2.0
//! What of a registry is read whole: at most so many bytes of it, and a login only to where nobody listens in.

use futures_util::StreamExt;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use reqwest::header::{ACCEPT, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};

use super::{MANIFESTS, PATIENCE, is_loopback, root};
use crate::error::{Context, Error, Result, plain};
use crate::image::DOCUMENT;

/// Bytes of an error page that are looked at.
const PAGE: usize = 4096;

/// A registry, for its documents.
pub struct Fetch {
    client: reqwest::Client,
    /// `https://HOST` or, on this machine, `http://HOST`
    address: String,
}

impl Fetch {
    /// Of `host`; `clear` says that it is this machine.
    pub fn new(host: &str, clear: bool) -> Result<Self> {
        let client = reqwest::Client::builder()
            .https_only(!clear)
            .read_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .user_agent(concat!("wsbox/", env!("CARGO_PKG_VERSION")))
            .build()
            .context(|| format!("docker://{host}"))?;
        Ok(Self { client, address: format!("{}://{host}", if clear { "http" } else { "https" }) })
    }

    /// Where the registry wants the login to be sent (distribution-spec's token authentication) has to be as safe as itself.
    ///
    /// # Errors
    /// If that is in clear, to another machine.
    pub async fn check_realm(&self) -> Result<()> {
        let url = format!("{}/v2/", self.address);
        let answer = self.client.get(&url).send().await.map_err(|error| failed(&url, &error))?;
        for challenge in answer.headers().get_all(WWW_AUTHENTICATE) {
            // Loopback's realm may be loopback's, too: nobody is in between.
            if !goes_safely(&String::from_utf8_lossy(challenge.as_bytes()), self.address.starts_with("http:")) {
                let why = format!("wants the login to be sent where others may listen: {challenge:?}; it is not sent");
                return Err(Error::new(url, why));
            }
        }
        Ok(())
    }

    /// The manifest or index of a name, of at most 4 MiB; none if there is none.
    pub async fn manifest(&self, client: &Client, name: &Reference, auth: &RegistryAuth) -> Result<Option<Vec<u8>>> {
        let subject = format!("docker://{name}");
        let which = name.digest().or(name.tag()).unwrap_or("latest");
        let url = format!("{}/v2/{}/manifests/{which}", self.address, name.repository());
        let token = client.auth(name, auth, RegistryOperation::Pull).await;
        let token = token.map_err(|error| super::failed(subject.clone(), name, &error))?;
        let request = self.client.get(&url).header(ACCEPT, MANIFESTS.join(", "));
        let request = match (token, auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            _ => request,
        };
        let answer = request.send().await.map_err(|error| failed(&subject, &error))?;
        match answer.status() {
            StatusCode::OK => body(answer, &subject, DOCUMENT as usize).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(super::wants_login(subject, name)),
            other => {
                let page = body(answer, &subject, PAGE).await.unwrap_or_default();
                Err(Error::new(
                    subject,
                    format!("the registry says {other}: {}", String::from_utf8_lossy(&page).trim()),
                ))
            }
        }
    }
}

async fn body(answer: Response, subject: &str, most: usize) -> Result<Vec<u8>> {
    let (mut bytes, mut stream) = (Vec::new(), answer.bytes_stream());
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.map_err(|error| failed(subject, &error))?);
        if bytes.len() > most {
            return Err(Error::new(subject, format!("the registry gives more than {most} bytes; it is refused")));
        }
    }
    Ok(bytes)
}

fn failed(subject: &str, error: &reqwest::Error) -> Error {
    Error::new(subject, plain(&root(error)))
}

/// Whether a token is asked for over https alone: every address in the challenge is one, however its parts are spelt and ordered. `Basic`
/// sends the login to the registry itself.
fn goes_safely(challenge: &str, loopback: bool) -> bool {
    let text = challenge.to_ascii_lowercase();
    if !text.contains("bearer") {
        return true;
    }
    let mut addresses = text.match_indices("://").map(|(at, _)| {
        let begin = text[..at].rfind(|letter: char| !letter.is_ascii_alphanumeric()).map_or(0, |before| before + 1);
        let end = text[at..].find(['"', ',', ' ']).map_or(text.len(), |length| at + length);
        (&text[begin..at], &text[begin..end])
    });
    let own = |url: &str| loopback && reqwest::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(is_loopback));
    text.contains("://") && addresses.all(|(scheme, url)| scheme == "https" || scheme == "http" && own(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_login_goes() {
        let safe = |challenge: &str| goes_safely(challenge, false);
        assert!(safe("Bearer realm=\"https://auth.example.org/token\",service=\"r\""));
        assert!(safe("Basic realm=\"test\""));
        for clear in [
            "bearer service=\"r\",Realm=\"http://auth.example.org/token\"",
            "Bearer realm=\"HTTP://auth.example.org/token\"",
            "Basic realm=\"r\", Bearer realm=\"http://x/t\"",
            "Bearer xrealm=\"https://ok\",realm=\"http://x/t\"",
            "Bearer realm = http://x/t",
            "Bearer realm=\"http://localhost:5000/token\"",
            "Bearer realm=\"//elsewhere\"",
        ] {
            assert!(!safe(clear), "{clear}");
        }
        assert!(goes_safely("Bearer realm=\"http://localhost:5000/token\"", true));
        assert!(!goes_safely("Bearer realm=\"http://localhost.example.org/\"", true));
    }
}
