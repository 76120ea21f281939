// SPDX-License-Identifier: Apache-2.0
//! Secrets by their looks. What is found is named, never shown.

/// Letters that a token is made of.
#[derive(Clone, Copy)]
enum Of {
    Upper,
    Letters,
    /// And `_` and `-`.
    Url,
}

impl Of {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Letters => byte.is_ascii_alphanumeric(),
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
        }
    }
}

struct Token {
    kind: &'static str,
    prefix: &'static [u8],
    of: Of,
    /// Letters after the prefix: not fewer, and not more.
    least: usize,
    most: usize,
}

const fn token(kind: &'static str, prefix: &'static str, of: Of, least: usize, most: usize) -> Token {
    Token { kind, prefix: prefix.as_bytes(), of, least, most }
}

const ANY: usize = usize::MAX;

static TOKENS: &[Token] = &[
    token("access key of AWS", "AKIA", Of::Upper, 16, 16),
    token("access key of AWS", "ASIA", Of::Upper, 16, 16),
    token("token of GitHub", "ghp_", Of::Letters, 36, ANY),
    token("token of GitHub", "gho_", Of::Letters, 36, ANY),
    token("token of GitHub", "ghu_", Of::Letters, 36, ANY),
    token("token of GitHub", "ghs_", Of::Letters, 36, ANY),
    token("token of GitHub", "ghr_", Of::Letters, 36, ANY),
    token("token of GitHub", "github_pat_", Of::Url, 22, ANY),
    token("token of GitLab", "glpat-", Of::Url, 20, ANY),
    token("token of Slack", "xoxb-", Of::Url, 24, ANY),
    token("token of Slack", "xoxp-", Of::Url, 24, ANY),
    token("token of Slack", "xoxa-", Of::Url, 24, ANY),
    token("key of Stripe", "sk_live_", Of::Letters, 16, ANY),
    token("key of Stripe", "rk_live_", Of::Letters, 16, ANY),
    token("key of Google", "AIza", Of::Url, 35, 35),
    token("token of npm", "npm_", Of::Letters, 36, 36),
    token("token of PyPI", "pypi-AgEI", Of::Url, 50, ANY),
    token("token of Docker", "dckr_pat_", Of::Url, 20, ANY),
    token("token of Hugging Face", "hf_", Of::Letters, 34, 34),
    token("key of Anthropic", "sk-ant-", Of::Url, 40, ANY),
    token("key of OpenAI", "sk-proj-", Of::Url, 40, ANY),
    token("token of DigitalOcean", "dop_v1_", Of::Letters, 64, 64),
];

/// The kind of the first token in `text`.
pub fn token_in(text: &[u8]) -> Option<&'static str> {
    (0..text.len()).find_map(|at| {
        // The letters that prefixes begin with: most bytes are done here.
        if !matches!(text[at], b'A' | b'g' | b'x' | b's' | b'r' | b'n' | b'p' | b'd' | b'h') {
            return None;
        }
        let inside = at.checked_sub(1).is_some_and(|before| Of::Url.has(text[before]));
        TOKENS.iter().find(|token| !inside && token.at(&text[at..])).map(|token| token.kind)
    })
}

impl Token {
    fn at(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(self.prefix) else { return false };
        let count = rest.iter().take_while(|byte| self.of.has(**byte)).count();
        // Manuals of AWS have such keys.
        (self.least..=self.most).contains(&count) && !rest[..count].ends_with(b"EXAMPLE")
    }
}

/// Whether a private key is in `text`: the line that it begins with, and what looks like a key after it. Programs and manuals have the
/// line alone.
pub fn private_key_in(text: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let begins = |at: &usize| text[*at] == b'-' && text[*at..].starts_with(BEGIN);
    text.starts_with(b"PuTTY-User-Key-File-")
        || (0..text.len()).filter(begins).any(|at| is_key(&text[at + BEGIN.len()..]))
}

fn is_key(text: &[u8]) -> bool {
    let line = text.iter().take(64).position(|byte| *byte == b'-').unwrap_or_default();
    let (name, rest) = text.split_at(line);
    let Some(body) = rest.strip_prefix(b"-----") else { return false };
    let body = String::from_utf8_lossy(&body[..body.len().min(512)]).replace("\\r", "").replace("\\n", "\n");
    let body = body.trim_start();
    match name {
        b"PGP PRIVATE KEY BLOCK" => body.lines().any(is_base64),
        _ if name.ends_with(b"PRIVATE KEY") => body.starts_with("Proc-Type:") || body.lines().take(1).any(is_base64),
        _ => false,
    }
}

fn is_base64(line: &str) -> bool {
    line.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')).count() >= 32
}

/// Whether a variable of this name holds a secret, by its words. What ends so holds where it is, or something about it.
pub fn is_secret_name(name: &str) -> bool {
    const WORDS: [&str; 9] =
        ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "CREDENTIALS", "APIKEY", "PASS", "PWD"];
    const PAIRS: [&str; 5] = ["API_KEY", "ACCESS_KEY", "PRIVATE_KEY", "SECRET_KEY", "ENCRYPTION_KEY"];
    const ENDS: [&str; 12] =
        ["_FILE", "_PATH", "_DIR", "_URL", "_URI", "_ID", "_NAME", "_TTL", "_LENGTH", "_EXPIRY", "_TYPE", "_HASH"];
    let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
    if matches!(name.as_str(), "PWD" | "OLDPWD") || ENDS.iter().any(|end| name.ends_with(end)) {
        return false;
    }
    name.split('_').any(|word| WORDS.contains(&word)) || PAIRS.iter().any(|pair| name.contains(pair))
}

/// Whether `text` has an address with a password in it: `scheme://user:password@host`.
pub fn has_login(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let login = rest.split(['/', '?', '#']).next().and_then(|place| place.rsplit_once('@'));
        login.and_then(|(login, _)| login.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let letters = "aB3".repeat(12);
        for (text, kind) in [
            (format!("AWS_KEY=AKIA{}", "A2".repeat(8)), Some("access key of AWS")),
            (format!("x ghp_{letters}\n"), Some("token of GitHub")),
            (format!("\"glpat-{letters}\""), Some("token of GitLab")),
            (format!("npm_{letters}"), Some("token of npm")),
            (format!("npm_{letters}x"), None),
            (format!("xghp_{letters}"), None),
            ("AKIAIOSFODNN7EXAMPLE".into(), None),
            (format!("AKIA{}", "A2".repeat(9)), None),
            ("ghp_short".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(token_in(text.as_bytes()), kind, "{text}");
        }
    }

    #[test]
    fn private_keys() {
        let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj";
        for (text, is) in [
            (format!("-----BEGIN PRIVATE KEY-----\n{body}\n"), true),
            (format!("x\n-----BEGIN RSA PRIVATE KEY-----\r\n{body}\r\n"), true),
            (format!("{{\"key\": \"-----BEGIN EC PRIVATE KEY-----\\n{body}\\n\"}}"), true),
            ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".into(), true),
            (format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{body}"), true),
            (format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{body}"), true),
            (format!("-----BEGIN CERTIFICATE-----\n{body}"), false),
            (format!("-----BEGIN PUBLIC KEY-----\n{body}"), false),
            ("-----BEGIN PRIVATE KEY-----\0-----END PRIVATE KEY-----".into(), false),
            ("-----BEGIN ".into(), false),
            ("-----BEGIN PRIVATE KEY".into(), false),
            ("PuTTY-User-Key-File-3: ssh-ed25519".into(), true),
        ] {
            assert_eq!(private_key_in(text.as_bytes()), is, "{text:?}");
        }
    }

    #[test]
    fn names_and_logins() {
        for name in ["DB_PASSWORD", "API_KEY", "github-token", "AWS_SECRET_ACCESS_KEY", "MYSQL_ROOT_PASSWORD", "SECRET"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in
            ["PWD", "DB_PASSWORD_FILE", "GPG_KEY", "TOKENIZERS_PARALLELISM", "PATH", "AWS_ACCESS_KEY_ID", "COMPASS"]
        {
            assert!(!is_secret_name(name), "{name}");
        }
        for (text, has) in [
            ("postgres://app:hunter2@db/app", true),
            ("a redis://:x@h", true),
            ("http://h:80/x@y", false),
            ("http://user@h", false),
            ("http://user:@h", false),
        ] {
            assert_eq!(has_login(text), has, "{text}");
        }
    }
}
