// SPDX-License-Identifier: Apache-2.0
//! systemd's manager on D-Bus (org.freedesktop.systemd1(5)). By zbus, which cgroups-rs brings: the client of cgroups-rs itself reaches no
//! user's instance, does not wait for what it asked for, and takes a limit of a unit that it does not find for set.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::Duration;

use zbus::blocking::{Connection, MessageIterator, connection};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{MatchRule, Message, message};

use super::properties::Value;
use super::{Property, unusable};
use crate::error::{Error, Kind, Result};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// How long systemd may take to answer, and to end a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the host's systemd, or the user's.
#[derive(Debug)]
pub(in crate::cgroup) struct Manager {
    connection: Connection,
    user: bool,
}

type Sent<'a> = Vec<(&'a str, zbus::zvariant::Value<'a>)>;

impl Manager {
    /// Connects to the bus.
    pub fn connect(user: bool) -> Result<Self> {
        // In a user namespace of our own we are not whom the bus takes us for.
        let session = || connection::Builder::session().map(|builder| builder.user_id(crate::rootless::outer_uid()));
        let builder = if user { session() } else { connection::Builder::system() };
        let connection = builder.and_then(|builder| builder.method_timeout(PATIENCE).build());
        connection.map(|connection| Self { connection, user }).map_err(|error| unreachable(user, &error))
    }

    fn call<B>(&self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        self.connection.call_method(Some(NAME), PATH, Some(MANAGER), method, body)
    }

    fn who(&self) -> &'static str {
        if self.user { "the user's systemd" } else { "systemd" }
    }

    fn refused(&self, what: &str, unit: &str, error: &zbus::Error) -> Error {
        let why = match error {
            zbus::Error::MethodError(_, Some(text), _) => text.trim_end_matches('.').to_owned(),
            error => error.to_string(),
        };
        let error_ =
            Error::new(Kind::System, "--systemd-cgroup", format!("{} does not {what} {unit}: {why}", self.who()));
        match name(error) {
            Some("org.freedesktop.systemd1.UnitExists") => error_.hint(format!(
                "another container has it, or it failed: systemctl stop {unit}; systemctl reset-failed {unit}"
            )),
            Some("org.freedesktop.DBus.Error.PropertyReadOnly" | "org.freedesktop.DBus.Error.UnknownProperty") => {
                error_.hint("this version of systemd lacks the property: leave out what asks for it")
            }
            _ => error_,
        }
    }

    /// The cgroup that its units are below, without a leading slash.
    pub fn control_group(&self) -> Result<String> {
        let properties = "org.freedesktop.DBus.Properties";
        let answer = self.connection.call_method(Some(NAME), PATH, Some(properties), "Get", &(MANAGER, "ControlGroup"));
        let text = answer.and_then(|answer| {
            let value: OwnedValue = answer.body().deserialize()?;
            String::try_from(value).map_err(zbus::Error::from)
        });
        text.map(|text| text.trim_start_matches('/').to_owned())
            .map_err(|error| self.refused("name the cgroup of", "its units", &error))
    }

    /// Starts a transient unit, and waits until it is there.
    pub fn start(&self, unit: &str, properties: &[Property]) -> Result<()> {
        let none: Vec<(&str, Sent<'_>)> = Vec::new();
        self.job("start", unit, "StartTransientUnit", &(unit, "fail", sent(properties), none))
    }

    /// Gives a unit other properties, until it ends. systemd writes them to the cgroup between this request and the next.
    pub fn set(&self, unit: &str, properties: &[Property]) -> Result<()> {
        let set = self.call("SetUnitProperties", &(unit, true, sent(properties)));
        set.and_then(|_| self.call("GetUnit", &(unit,)))
            .map(drop)
            .map_err(|error| self.refused("set the limits of", unit, &error))
    }

    /// Moves a process of the caller's into a unit of the caller's, wherever it is now.
    pub fn attach(&self, unit: &str, pid: u32) -> Result<()> {
        let attached = self.call("AttachProcessesToUnit", &(unit, "/", vec![pid]));
        attached.map(drop).map_err(|error| self.refused("take a process into", unit, &error))
    }

    /// Stops a unit, and waits until it is gone; one that is not there is.
    pub fn stop(&self, unit: &str) -> Result<()> {
        match self.job("stop", unit, "StopUnit", &(unit, "replace")) {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            result => result,
        }?;
        // A scope that failed stays, unless it says otherwise.
        let _ = self.call("ResetFailedUnit", &(unit,));
        Ok(())
    }

    /// Calls what makes a job, and waits for its end.
    fn job<B>(&self, what: &str, unit: &str, method: &str, body: &B) -> Result<()>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let ended = self.ended_jobs().map_err(|error| self.refused(what, unit, &error))?;
        let answer = self.call(method, body).map_err(|error| match name(&error) {
            Some("org.freedesktop.systemd1.NoSuchUnit") => {
                Error::new(Kind::NotFound, "--systemd-cgroup", "no such unit")
            }
            _ => self.refused(what, unit, &error),
        })?;
        let job: OwnedObjectPath = answer.body().deserialize().map_err(|error| self.refused(what, unit, &error))?;
        loop {
            let failed = |why: &str| {
                Error::new(Kind::System, "--systemd-cgroup", format!("{} did not {what} {unit}: {why}", self.who()))
            };
            match ended.recv_timeout(PATIENCE) {
                Ok((ended, _)) if ended != job => {}
                // "skipped": there was nothing to do.
                Ok((_, result)) if matches!(result.as_str(), "done" | "skipped") => return Ok(()),
                Ok((_, result)) => return Err(failed(&result).hint(format!("systemctl status {unit} may say why"))),
                Err(_) => return Err(failed("no word of it in 30 s")),
            }
        }
    }

    /// The jobs that end from now on, with their results. The thread that listens ends with the receiver or the connection.
    fn ended_jobs(&self) -> zbus::Result<mpsc::Receiver<(OwnedObjectPath, String)>> {
        let rule = MatchRule::builder().msg_type(message::Type::Signal).sender(NAME)?.interface(MANAGER)?;
        let rule = rule.member("JobRemoved")?.build();
        let signals = MessageIterator::for_match_rule(rule, &self.connection, Some(256))?;
        // Who has subscribed already is told so.
        match self.call("Subscribe", &()) {
            Err(error) if name(&error) != Some("org.freedesktop.systemd1.AlreadySubscribed") => return Err(error),
            _ => {}
        }
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for signal in signals.flatten() {
                let body = signal.body();
                let Ok((_, job, _, result)) = body.deserialize::<(u32, OwnedObjectPath, String, String)>() else {
                    continue;
                };
                if sender.send((job, result)).is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

fn name(error: &zbus::Error) -> Option<&str> {
    match error {
        zbus::Error::MethodError(name, _, _) => Some(name.as_str()),
        _ => None,
    }
}

fn unreachable(user: bool, error: &zbus::Error) -> Error {
    if !user {
        return unusable(&format!("the system's D-Bus can not be reached: {error}"));
    }
    let why = format!("the D-Bus of the user's systemd can not be reached: {error}");
    let hint = "log in by PAM, or: loginctl enable-linger, export XDG_RUNTIME_DIR=/run/user/$(id -u); it takes dbus-user-session";
    Error::invalid("--systemd-cgroup", why).hint(hint)
}

fn sent(properties: &[Property]) -> Sent<'_> {
    use zbus::zvariant::Value as Z;
    let value = |value: &Value| match value.clone() {
        Value::Bool(value) => Z::from(value),
        Value::I32(value) => Z::from(value),
        Value::U32(value) => Z::from(value),
        Value::I64(value) => Z::from(value),
        Value::U64(value) => Z::from(value),
        Value::F64(value) => Z::from(value),
        Value::Str(value) => Z::from(value),
        Value::Strs(value) => Z::from(value),
        Value::Bytes(value) => Z::from(value),
        Value::U32s(value) => Z::from(value),
    };
    let named: HashMap<&str, &Value> =
        properties.iter().map(|property| (property.name.as_str(), &property.value)).collect();
    named.into_iter().map(|(name, found)| (name, value(found))).collect()
}
