// SPDX-License-Identifier: Apache-2.0
//! config.json to Spec, with the JSON path in every error and a warning for every field that nobody knows.

use std::borrow::Cow;
use std::path::Path;

use oci_spec::runtime::{Capability, LinuxResources, LinuxSeccomp, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::unique::Unique;
use crate::error::{Error, Kind, Result};

/// Parses a config; `file` is only for messages. The second value says what is ignored: unknown or misspelt fields (the spec says so,
/// but a misspelt limit is no limit), and capabilities that nobody knows.
///
/// # Errors
/// If it is no JSON, or a field has the wrong type or value.
pub fn parse(config: &[u8], file: &Path) -> Result<(Spec, Vec<String>)> {
    from_slice(config, file)
}

/// Parses the file of `update --resources`; the second value is as in [`parse`].
///
/// # Errors
/// As [`parse`].
pub fn parse_resources(bytes: &[u8], file: &Path) -> Result<(LinuxResources, Vec<String>)> {
    from_slice(bytes, file)
}

/// Parses the file of `exec --process`; the second value is as in [`parse`].
///
/// # Errors
/// As [`parse`].
pub fn parse_process(bytes: &[u8], file: &Path) -> Result<(Process, Vec<String>)> {
    from_slice(bytes, file)
}

/// Parses a seccomp profile in the format of `linux.seccomp`.
///
/// # Errors
/// As [`parse`].
pub fn parse_seccomp(bytes: &[u8], file: &Path) -> Result<LinuxSeccomp> {
    from_slice(bytes, file).map(|(profile, _)| profile)
}

/// Flags of schedulers that oci-spec spells otherwise than the runtime-spec does.
const SCHEDULER_FLAGS: [(&str, &str); 2] =
    [("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"), ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN")];

/// The same with oci-spec's names; as it was where it has none of them.
fn respelt(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !std::str::from_utf8(bytes).is_ok_and(|text| text.contains("SCHED_FLAG_")) {
        return Cow::Borrowed(bytes);
    }
    let Some(mut config) = unique(bytes) else { return Cow::Borrowed(bytes) };
    for pointer in ["/process/scheduler/flags", "/scheduler/flags"] {
        for flag in config.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some((_, name)) = SCHEDULER_FLAGS.iter().find(|(name, _)| *flag == **name) {
                *flag = (*name).into();
            }
        }
    }
    serde_json::to_vec(&config).map_or(Cow::Borrowed(bytes), Cow::Owned)
}

fn from_slice<T: DeserializeOwned>(bytes: &[u8], file: &Path) -> Result<(T, Vec<String>)> {
    let bytes = &*respelt(bytes);
    if let Some(found) = whole(bytes) {
        return Ok(found);
    }
    let Some((without, unknown)) = without_unknown_capabilities(bytes) else { return Err(explain::<T>(bytes, file)) };
    let (value, mut warnings) = whole(&without).ok_or_else(|| explain::<T>(&without, file))?;
    warnings.extend(unknown);
    Ok((value, warnings))
}

/// All of it, and what is ignored; nothing if there is anything wrong.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let ignore = |path: &str| format!("{}: nobody knows this field, it is ignored (misspelt?)", plain(path));
    let value = serde_ignored::deserialize(&mut json, |path| warnings.push(ignore(&path.to_string()))).ok()?;
    json.end().ok().map(|()| (value, warnings))
}

/// JSON in which no field is twice.
fn unique(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Unique>(bytes).ok()?;
    serde_json::from_slice(bytes).ok()
}

/// The same without them, and a warning of each: those of a newer kernel are not granted, but are no reason to fail (config.md,
/// "Linux Process": SHOULD NOT fail).
fn without_unknown_capabilities(bytes: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let mut config = unique(bytes)?;
    let mut warnings = Vec::new();
    for pointer in ["/process/capabilities", "/capabilities"] {
        for (set, names) in config.pointer_mut(pointer).and_then(Value::as_object_mut).into_iter().flatten() {
            let field = format!("{}.{set}", pointer[1..].replace('/', "."));
            let Some(names) = names.as_array_mut() else { continue };
            names.retain(|name| {
                let known = !name.is_string() || Capability::deserialize(name).is_ok();
                if !known {
                    warnings.push(format!("{field}: {name} is no capability that wsbox knows, it is not granted"));
                }
                known
            });
        }
    }
    let without = serde_json::to_vec(&config).ok()?;
    (!warnings.is_empty()).then_some((without, warnings))
}

/// serde_ignored writes `?` for each Option on the way.
fn plain(path: &str) -> String {
    path.split('.').filter(|part| *part != "?").collect::<Vec<_>>().join(".")
}

/// What Rust calls it, and JSON does.
const TYPES: [(&str, &str); 12] = [
    ("expected struct ", "expected an object, "),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected an object"),
    ("expected path string", "expected a path"),
    ("invalid type: sequence", "invalid type: a list"),
    ("invalid type: map", "invalid type: an object"),
    ("expected u8", "expected a whole number from 0 to 255"),
    ("expected u16", "expected a whole number from 0 to 65535"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u64", "expected a whole number that is not negative"),
    ("expected i32", "expected a whole number of 32 bits"),
    ("expected i64", "expected a whole number"),
];

fn in_json(words: &str) -> String {
    let found = TYPES.iter().find(|(rust, _)| words.contains(rust));
    found.map_or_else(|| words.to_owned(), |(rust, json)| words.replacen(rust, json, 1))
}

/// Parses once more, slowly, for the path of what is wrong.
fn explain<T: DeserializeOwned>(bytes: &[u8], file: &Path) -> Error {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let file = file.display();
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) if matches!(error.path().to_string().as_str(), "." | "?") => {
            Error::invalid(file.to_string(), error.inner().to_string())
        }
        // What is there may be a secret, in a place where one is not looked for.
        Err(error) if error.path().iter().any(|part| part.to_string() == "env") => {
            let why = format!("is to be a list of NAME=VALUE texts in {file}");
            Error::invalid(error.path().to_string(), why)
        }
        Err(error) => {
            Error::invalid(error.path().to_string(), format!("{} in {file}", in_json(&error.inner().to_string())))
        }
        Ok(_) => match json.end() {
            Err(error) => Error::invalid(file.to_string(), error.to_string()),
            Ok(()) => Error::new(Kind::Invalid, file.to_string(), "can not be parsed"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(config: &str) -> String {
        parse(config.as_bytes(), Path::new("/b/config.json")).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_json_path() {
        let process = |process: &str| {
            format!(r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},{process}}}}}"#)
        };
        for (config, path) in [
            (process(r#""args":"sh""#), "process.args:"),
            (process(r#""env":"TOKEN=s3cret""#), "process.env: is to be a list"),
            (process(r#""env":[3]"#), "process.env[0]: is to be a list"),
            (process(r#""args":["sh",3]"#), "process.args[1]:"),
            (process(r#""rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]"#), "process.rlimits[0].type:"),
            (process(r#""capabilities":{"bounding":[7]}"#), "process.capabilities.bounding"),
            (process(r#""noNewPrivileges":"yes""#), "process.noNewPrivileges:"),
            (r#"{"ociVersion":"1","mounts":[{"destination":"/a"},{"type":"proc"}]}"#.into(), "mounts[1]:"),
            (r#"{"ociVersion":"1","linux":{"namespaces":[{"type":"pit"}]}}"#.into(), "linux.namespaces[0].type:"),
            (
                r#"{"ociVersion":"1","linux":{"uidMappings":[{"containerID":-1,"hostID":0,"size":1}]}}"#.into(),
                "linux.uidMappings[0].containerID:",
            ),
            (
                r#"{"ociVersion":"1","linux":{"seccomp":{"defaultAction":"SCMP_ACT_NO"}}}"#.into(),
                "linux.seccomp.defaultAction:",
            ),
            (
                r#"{"ociVersion":"1","linux":{"resources":{"memory":{"limit":"1G"}}}}"#.into(),
                "linux.resources.memory.limit:",
            ),
            (r#"{"ociVersion":"1","root":{"path":7}}"#.into(), "root.path:"),
        ] {
            assert!(error(&config).starts_with(path), "{config}: {}", error(&config));
        }
    }

    #[test]
    fn flags_of_schedulers_are_the_specs() {
        let json = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["SCHED_FLAG_DL_OVERRUN"],
            "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"]}}"#;
        let (process, _) = parse_process(json.as_bytes(), Path::new("p")).unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 2);
        assert_eq!(process.args().as_ref().unwrap()[0], "SCHED_FLAG_DL_OVERRUN");
    }

    #[test]
    fn types_are_those_of_json() {
        let said = error(r#"{"ociVersion":"1","process":{"cwd":"/","user":{"uid":"root","gid":0}}}"#);
        assert!(said.contains("expected a whole number from 0 to 4294967295 at line 1"), "{said}");
        let said = error(r#"{"ociVersion":"1","root":7}"#);
        assert!(said.contains("expected an object, Root"), "{said}");
    }

    #[test]
    fn capabilities_that_nobody_knows_are_not_granted() {
        let json = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL", "CAP_NEW"], "effective": ["CAP_NEW"]}}"#;
        let (process, warnings) = parse_process(json.as_bytes(), Path::new("p")).unwrap();
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
        assert!(sets.effective().as_ref().unwrap().is_empty());
        let wanted = r#"capabilities.bounding: "CAP_NEW" is no capability"#;
        assert!(warnings.len() == 2 && warnings[0].starts_with(wanted), "{warnings:?}");
        // What else is wrong is told.
        let told = |json: String| parse_process(json.as_bytes(), Path::new("p")).unwrap_err().to_string();
        assert!(told(json.replace("\"/\"", "7")).starts_with("cwd: "));
        let twice = json.replace("\"cwd\"", "\"cwd\": \"/x\", \"cwd\"");
        assert!(told(twice.replace("CAP_NEW", "CAP_CHOWN")).contains("duplicate field `cwd`"));
        assert!(parse_process(twice.as_bytes(), Path::new("p")).is_err());
    }

    #[test]
    fn what_is_no_json_names_the_file() {
        assert!(error("{").starts_with("/b/config.json: EOF"), "{}", error("{"));
        assert!(error("").starts_with("/b/config.json:"));
        assert!(
            error(r#"{"ociVersion":"1"} x"#).starts_with("/b/config.json: trailing"),
            "{}",
            error(r#"{"ociVersion":"1"} x"#)
        );
    }

    #[test]
    fn unknown_fields_are_warned_of_by_path() {
        let config = br#"{"ociVersion":"1","linux":{"resources":{"memmory":{"limit":1}}},"proces":{}}"#;
        let (_, warnings) = parse(config, Path::new("config.json")).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("linux.resources.memmory:"), "{warnings:?}");
        assert!(warnings[1].starts_with("proces:"), "{warnings:?}");
    }
}
