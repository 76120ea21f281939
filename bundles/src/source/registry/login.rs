// SPDX-License-Identifier: Apache-2.0
//! Logins as `docker login` keeps them: in Docker's config.json, or with a helper that it names (docker-credential-helpers(1)).

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;

use crate::error::{Context, Error, Result};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The login for `host`; none is no error until the registry wants one.
pub fn find(host: &str) -> Result<RegistryAuth> {
    let Some(path) = path() else { return Ok(RegistryAuth::Anonymous) };
    let subject = || path.display().to_string();
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        result => result.context(subject)?,
    };
    let config: Config = serde_json::from_slice(&text).context(subject)?;
    // Docker's own hub has an address of its own there.
    let key = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
    if let Some(helper) = config.cred_helpers.get(key).or(config.creds_store.as_ref()) {
        return helped(helper, key);
    }
    let names = [key.to_owned(), format!("https://{host}")];
    let Some(entry) = names.iter().find_map(|name| config.auths.get(name)) else { return Ok(RegistryAuth::Anonymous) };
    if entry.identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
        return Err(Error::new(subject(), format!("has an identity token for {host}, which is not supported"))
            .hint("log in with a name and a password or access token"));
    }
    // What is wrong is not shown: it is a secret.
    let wrong = || Error::new(subject(), format!("its login for {host} is none"));
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(RegistryAuth::Anonymous) };
    let text = STANDARD.decode(auth.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(text).map_err(|_| wrong())?;
    let (user, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok(RegistryAuth::Basic(user.into(), password.trim_end_matches('\0').into()))
}

fn path() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

fn helped(helper: &str, host: &str) -> Result<RegistryAuth> {
    let program = format!("docker-credential-{helper}");
    if helper.contains('/') {
        return Err(Error::new(program, "is no name of a program"));
    }
    let context = || program.clone();
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context(context)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(host.as_bytes()).context(context)?;
    }
    let output = child.wait_with_output().context(context)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return match said.contains("credentials not found") {
            true => Ok(RegistryAuth::Anonymous),
            false => Err(Error::new(program, format!("ended with {}", output.status))),
        };
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| Error::new(program, "gave no login"))?;
    match answer.username.as_str() {
        "<token>" => Err(Error::new(format!("the login for {host}"), "is an identity token, which is not supported")),
        _ => Ok(RegistryAuth::Basic(answer.username, answer.secret)),
    }
}
