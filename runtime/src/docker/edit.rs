// SPDX-License-Identifier: Apache-2.0
//! Puts a runtime into the text of daemon.json and leaves every other byte as it is: order, indentation, numbers.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// What was done to the text.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// It was there
    None,
    /// It was not there
    Added,
    /// It was there with these settings
    Replaced(String),
}

/// `text` with `runtimes.NAME` as `wanted`.
///
/// # Errors
/// Why it is no settings file of dockerd's.
pub fn put_runtime(text: &str, name: &str, wanted: &Value) -> Result<(String, Change), String> {
    let top = Object::parse(text, 0..text.len(), "the file")?;
    let Some(runtimes) = top.member("runtimes") else {
        return put_runtime(&top.insert(text, "runtimes", "{}"), name, wanted);
    };
    if text[runtimes.clone()].trim() == "null" {
        let text = format!("{}{{}}{}", &text[..runtimes.start], &text[runtimes.end..]);
        return put_runtime(&text, name, wanted);
    }
    let runtimes = Object::parse(text, runtimes, "runtimes")?;
    let Some(old) = runtimes.member(name) else {
        return Ok((runtimes.insert(text, name, &one_line(wanted)), Change::Added));
    };
    let value: Value = serde_json::from_str(&text[old.clone()]).map_err(|error| error.to_string())?;
    if same(&value, wanted) {
        return Ok((text.to_owned(), Change::None));
    }
    let after = format!("{}{}{}", &text[..old.start], one_line(wanted), &text[old.end..]);
    Ok((after, Change::Replaced(value.to_string())))
}

/// The settings of runtime `name`, if it is there.
///
/// # Errors
/// As of [`put_runtime`].
pub fn runtime(text: &str, name: &str) -> Result<Option<Value>, String> {
    let top = Object::parse(text, 0..text.len(), "the file")?;
    let Some(runtimes) = top.member("runtimes").filter(|span| &text[span.clone()] != "null") else { return Ok(None) };
    let runtimes = Object::parse(text, runtimes, "runtimes")?;
    let value = runtimes.member(name).map(|span| serde_json::from_str(&text[span]));
    value.transpose().map_err(|error| error.to_string())
}

/// No arguments and empty arguments are alike.
fn same(one: &Value, other: &Value) -> bool {
    let plain = |value: &Value| {
        let mut value = value.clone();
        if let Value::Object(map) = &mut value {
            map.retain(|_, value| !value.is_null() && value != &Value::Array(Vec::new()));
        }
        value
    };
    plain(one) == plain(other)
}

/// As people write it, with spaces.
fn one_line(value: &Value) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Object(map) => {
            format!("{{ {} }}", list(map.iter().map(|(key, value)| format!("{key:?}: {}", one_line(value))).collect()))
        }
        Value::Array(items) => format!("[{}]", list(items.iter().map(one_line).collect())),
        value => value.to_string(),
    }
}

/// An object of the text: where it is, and where the values of its members are.
struct Object {
    span: Range<usize>,
    members: Vec<(String, Range<usize>)>,
}

impl Object {
    fn parse(text: &str, span: Range<usize>, what: &str) -> Result<Self, String> {
        let part = &text[span.clone()];
        let Members(members) = serde_json::from_str(part).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => format!("{what} is {}, where dockerd takes an object", kind(part)),
            _ => format!("is no JSON: {error}"),
        })?;
        let lead = part.len() - part.trim_start().len();
        let offset = |raw: &RawValue| raw.get().as_ptr() as usize - text.as_ptr() as usize;
        let members: Vec<(String, Range<usize>)> =
            members.into_iter().map(|(key, raw)| (key, offset(raw)..offset(raw) + raw.get().len())).collect();
        for (at, (key, _)) in members.iter().enumerate() {
            if members[..at].iter().any(|(other, _)| other == key) {
                return Err(format!("{what} has {key:?} twice"));
            }
        }
        Ok(Self { span: span.start + lead..span.start + part.trim_end().len(), members })
    }

    fn member(&self, key: &str) -> Option<Range<usize>> {
        self.members.iter().find(|(own, _)| own == key).map(|(_, span)| span.clone())
    }

    /// One more member, last; in the style of the one before it.
    fn insert(&self, text: &str, key: &str, value: &str) -> String {
        let indent = |at: usize| {
            let line = &text[text[..at].rfind('\n').map_or(0, |end| end + 1)..at];
            line[..line.len() - line.trim_start().len()].to_owned()
        };
        let (at, added) = match self.members.last() {
            Some((_, last)) if text[self.span.start..last.start].contains('\n') => {
                (last.end, format!(",\n{}{key:?}: {value}", indent(last.start)))
            }
            Some((_, last)) => (last.end, format!(", {key:?}: {value}")),
            None => {
                let outer = indent(self.span.start);
                let inner = if outer.contains('\t') { format!("{outer}\t") } else { format!("{outer}    ") };
                (self.span.start + 1, format!("\n{inner}{key:?}: {value}\n{outer}"))
            }
        };
        let rest = if self.members.is_empty() { self.span.end - 1 } else { at };
        format!("{}{added}{}", &text[..at], &text[rest..])
    }
}

/// What a value is that is no object.
fn kind(value: &str) -> &'static str {
    match value.trim_start().as_bytes().first() {
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    }
}

/// The members of an object in their order, each as its text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(text: &str) -> String {
        put_runtime(text, "wsbox", &json!({ "path": "/b/wsbox" })).unwrap().0
    }

    #[test]
    fn every_other_byte_stays() {
        for (before, after) in [
            ("{}", "{\n    \"runtimes\": {\n        \"wsbox\": { \"path\": \"/b/wsbox\" }\n    }\n}"),
            (
                "{\"z\":1,\"a\":1.50}\n",
                "{\"z\":1,\"a\":1.50, \"runtimes\": {\n    \"wsbox\": { \"path\": \"/b/wsbox\" }\n}}\n",
            ),
            (
                "{\n  \"z\": [1,\n    2],\n  \"a\" : 1e3\n}\n",
                "{\n  \"z\": [1,\n    2],\n  \"a\" : 1e3,\n  \"runtimes\": {\n      \"wsbox\": { \"path\": \"/b/wsbox\" }\n  }\n}\n",
            ),
            (
                "{\n\t\"runtimes\": {\n\t\t\"kata\": {\"path\": \"/k\"}\n\t},\n\t\"x\": \"\\u00e9\"\n}",
                "{\n\t\"runtimes\": {\n\t\t\"kata\": {\"path\": \"/k\"},\n\t\t\"wsbox\": { \"path\": \"/b/wsbox\" }\n\t},\n\t\"x\": \"\\u00e9\"\n}",
            ),
            ("{\"runtimes\": null}", "{\"runtimes\": {\n    \"wsbox\": { \"path\": \"/b/wsbox\" }\n}}"),
            ("{\"runtimes\":{\"k\":{}}}", "{\"runtimes\":{\"k\":{}, \"wsbox\": { \"path\": \"/b/wsbox\" }}}"),
        ] {
            assert_eq!(put(before), after);
            assert_eq!(put(after), after, "a second time");
            assert!(serde_json::from_str::<Value>(after).is_ok());
        }
    }

    #[test]
    fn what_is_there_is_compared_by_meaning() {
        let wanted = json!({ "path": "/b/wsbox" });
        for same in [
            r#"{ "path" : "/b/wsbox" }"#,
            r#"{"runtimeArgs":[],"path":"\/b\/wsbox"}"#,
            r#"{"path":"/b/wsbox","runtimeArgs":null}"#,
        ] {
            let text = format!(r#"{{"runtimes":{{"wsbox":{same}}}}}"#);
            assert_eq!(put_runtime(&text, "wsbox", &wanted).unwrap(), (text, Change::None));
        }
        let text = r#"{"runtimes":{"wsbox":{"path":"/other"},"k":1}}"#;
        let (after, change) = put_runtime(text, "wsbox", &wanted).unwrap();
        assert_eq!(after, r#"{"runtimes":{"wsbox":{ "path": "/b/wsbox" },"k":1}}"#);
        assert_eq!(change, Change::Replaced(r#"{"path":"/other"}"#.into()));
    }

    #[test]
    fn what_is_no_settings_file_is_refused() {
        for (text, words) in [
            ("{", "is no JSON: EOF"),
            ("{\"a\":1,}", "is no JSON: trailing comma"),
            ("// x\n{}", "is no JSON"),
            ("[]", "the file is a list, where dockerd takes an object"),
            ("{\"runtimes\": []}", "runtimes is a list, where"),
            ("{\"runtimes\": \"x\"}", "runtimes is a string, where"),
            ("{\"a\":1,\"a\":2}", "the file has \"a\" twice"),
            ("{\"runtimes\":{\"x\":1,\"x\":2}}", "runtimes has \"x\" twice"),
            ("{} {}", "is no JSON: trailing characters"),
        ] {
            let why = put_runtime(text, "wsbox", &json!({})).unwrap_err();
            assert!(why.starts_with(words), "{text}: {why}");
            assert_eq!(runtime(text, "wsbox"), Err(why), "{text}");
        }
    }
}
