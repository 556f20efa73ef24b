//! Paths by template, and new paths of their variables: the extensions `uri_template_matcher` and `uri_template_rewriter`.
//!
//! A template is made of segments: text, `*` for one segment, `**` for any number of them, and variables that stand for either
//! or for a path of them (`{name=a/*/b}`). Text may stand around a variable, and behind an operator at the very end. It becomes
//! an expression, and text keeps what an expression makes of its `*`: `a*` is any number of `a`, as in Envoy 1.40, and what is no
//! expression matches nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;

use super::regex::Regex;
use super::tree::{decode, type_name};
use crate::config::{At, ConfigError};

const MATCHER: &str = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
const REWRITER: &str = "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig";

/// One segment, and any number of them; RFC 3986's `pchar`.
const SEGMENT: &str = "[a-zA-Z0-9-._~%!$&'()*+,;=:@]+";
const SEGMENTS: &str = "[a-zA-Z0-9-._~%!$&'()*+,;=:@/]*";

/// Variables of one template, and the bytes of their names.
const MOST_VARIABLES: usize = 5;
const LONGEST_NAME: usize = 16;

/// Bytes of a template.
const LONGEST: usize = 256;

/// A compiled template.
#[derive(Debug)]
pub struct PathTemplate {
    text: Box<str>,
    /// `None`: it matches nothing.
    regex: Option<Regex>,
    variables: Vec<Box<str>>,
}

/// How a new path is made of a template's variables.
#[derive(Debug)]
pub struct PathTemplateRewrite {
    template: Arc<PathTemplate>,
    parts: Vec<Part>,
}

/// A part of a new path; `V` tells a variable.
#[derive(Debug)]
enum Part<V = usize> {
    Text(Box<str>),
    Variable(V),
}

impl PathTemplate {
    /// Understands a path matcher extension.
    ///
    /// # Errors
    /// In Envoy's words when it is another one, or its template is none.
    pub fn parse(at: &At<'_>, proto: TypedExtensionConfig) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = proto;
        let config = at.required("typed_config", typed_config)?;
        if type_name(&config) != MATCHER {
            return Err(at.unknown_extension(&name, type_name(&config)));
        }
        let at = at.field("typed_config");
        let UriTemplateMatchConfig { path_template } = decode(&at, &config)?;
        let at = at.field("path_template");
        check_length(&at, &path_template)?;
        Self::new(&path_template)
            .map_err(|why| at.error(format_args!("path_match_policy.path_template {path_template} is invalid: {why}")))
    }

    fn new(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.strip_prefix('/').unwrap_or_default(), ..Reader::default() };
        if !text.starts_with('/') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("Invalid pattern: \"{text}\""));
        }
        reader.read()?;
        let Reader { expression, variables, .. } = reader;
        Ok(Self { text: text.into(), regex: Regex::new(&expression).ok(), variables })
    }

    /// Bytes every match begins with. An index may filter by it.
    #[must_use]
    pub fn literal_prefix(&self) -> &[u8] {
        self.regex.as_ref().map_or(b"/", Regex::literal_prefix)
    }

    /// The parts with variables by number instead of name; `None` where it lacks one, or matches nothing.
    fn bind(&self, parts: Vec<Part<&str>>) -> Option<Vec<Part>> {
        let bound = |part: Part<&str>| match part {
            Part::Text(text) => Some(Part::Text(text)),
            Part::Variable(name) => self.variables.iter().position(|known| **known == *name).map(Part::Variable),
        };
        self.regex.as_ref().and_then(|_| parts.into_iter().map(bound).collect())
    }

    /// Whether it matches a path, whose query and fragment do not count.
    #[must_use]
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(bare(path)))
    }
}

impl PathTemplateRewrite {
    /// Understands a path rewriter extension, for what `matcher` matches.
    ///
    /// # Errors
    /// In Envoy's words when it is another one, its template is none, or it has a variable that the matcher has not.
    pub fn parse(
        at: &At<'_>,
        proto: TypedExtensionConfig,
        matcher: Option<&Arc<PathTemplate>>,
    ) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = proto;
        let config = at.required("typed_config", typed_config)?;
        if type_name(&config) != REWRITER {
            return Err(at.unknown_extension(&name, type_name(&config)));
        }
        let here = at.field("typed_config");
        let UriTemplateRewriteConfig { path_template_rewrite: text } = decode(&here, &config)?;
        let here = here.field("path_template_rewrite");
        check_length(&here, &text)?;
        let parts = parts(&text)
            .ok_or_else(|| here.error(format_args!("path_rewrite_policy.path_template_rewrite {text} is invalid")))?;
        let Some(template) = matcher else {
            return Err(at.error(
                "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension without \
                 envoy.path.match.uri_template.uri_template_matcher extension",
            ));
        };
        let parts = template.bind(parts).ok_or_else(|| {
            let pattern = &template.text;
            at.error(format_args!(
                "mismatch between variables in path_match_policy {pattern} and path_rewrite_policy {text}"
            ))
        })?;
        Ok(Self { template: Arc::clone(template), parts })
    }

    /// The new path, for one without query and fragment; `None` where the matcher does not match it.
    #[must_use]
    pub fn apply(&self, path: &[u8]) -> Option<Vec<u8>> {
        let found = self.template.regex.as_ref()?.captures(path)?;
        let mut new = Vec::with_capacity(path.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => new.extend_from_slice(text.as_bytes()),
                Part::Variable(number) => {
                    // The whole match is the first group of all.
                    new.extend_from_slice(found.get(number + 1).map_or(&b""[..], |value| value.as_bytes()));
                }
            }
        }
        Some(new)
    }
}

fn check_length(at: &At<'_>, text: &str) -> Result<(), ConfigError> {
    if (1..=LONGEST).contains(&text.len()) {
        return Ok(());
    }
    Err(at.error(format_args!("value must have between 1 and {LONGEST} characters inclusive")))
}

fn bare(path: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
    path.get(..end).unwrap_or_default()
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reads a template into an expression.
#[derive(Default)]
struct Reader<'t> {
    rest: &'t str,
    expression: String,
    variables: Vec<Box<str>>,
    /// There was `**`.
    open: bool,
}

impl<'t> Reader<'t> {
    fn read(&mut self) -> Result<(), String> {
        self.expression.push('/');
        while !self.rest.is_empty() {
            let (segment, _) = split(self.rest);
            let mixed = segment.contains('{') && self.rest.contains('}');
            if self.rest.starts_with('*') {
                self.operator()?;
                if !self.rest.is_empty() && !self.rest.starts_with('/') {
                    let (text, behind) = split(self.rest);
                    self.text(text, "")?;
                    if !behind.is_empty() {
                        return Err("Prefix match not supported.".to_owned());
                    }
                    self.rest = "";
                }
            } else if self.rest.starts_with('{') || mixed {
                self.around_variable()?;
            } else {
                self.text(segment, "")?;
                self.rest = &self.rest[segment.len()..];
            }
            if let Some(rest) = self.rest.strip_prefix('/') {
                self.expression.push('/');
                self.rest = rest;
            }
        }
        let count = self.variables.len();
        if count > MOST_VARIABLES {
            return Err(format!("Exceeded variable count limit ({MOST_VARIABLES})"));
        }
        for (number, name) in self.variables.iter().enumerate() {
            if name.len() > LONGEST_NAME {
                return Err(format!(
                    "Invalid variable name length (length of \"{name}\" should be at least 1 and no more than {LONGEST_NAME})"
                ));
            }
            if self.variables[..number].contains(name) {
                return Err(format!("Repeated variable name: \"{name}\""));
            }
        }
        Ok(())
    }

    /// Text as it stands in an expression.
    fn text(&mut self, text: &str, what: &str) -> Result<(), String> {
        if !is_text(text) {
            return Err(format!("Invalid {what}literal: \"{text}\""));
        }
        for symbol in text.chars() {
            if "$()+.".contains(symbol) {
                self.expression.push('\\');
            }
            self.expression.push(symbol);
        }
        Ok(())
    }

    fn operator(&mut self) -> Result<(), String> {
        if self.open {
            return Err("Glob after text glob.".to_owned());
        }
        let (operator, rest) = match self.rest.strip_prefix("**") {
            Some(rest) => (SEGMENTS, rest),
            None => (SEGMENT, &self.rest[1..]),
        };
        self.open = operator == SEGMENTS;
        self.expression.push_str(operator);
        self.rest = rest;
        Ok(())
    }

    /// A variable with text before and behind it.
    fn around_variable(&mut self) -> Result<(), String> {
        let (before, from) = self.rest.split_at(self.rest.find('{').unwrap_or_default());
        if !before.is_empty() {
            self.text(before, "prefix ")?;
        }
        let Some((inside, behind)) = from[1..].split_once('}') else {
            return Err(format!("Unmatched variable bracket in mixed pattern: \"{from}\""));
        };
        self.variable(inside)?;
        let (text, rest) = split(behind);
        if !text.is_empty() {
            self.text(text, "suffix ")?;
        }
        self.rest = rest;
        Ok(())
    }

    /// What stands between the braces.
    fn variable(&mut self, inside: &'t str) -> Result<(), String> {
        let (name, pattern) = inside.split_once('=').map_or((inside, None), |(name, pattern)| (name, Some(pattern)));
        if !is_name(name) {
            return Err(format!("Invalid variable name: \"{name}\""));
        }
        let _ = write!(self.expression, "(?P<{name}>");
        match pattern {
            Some("") => return Err("Empty variable match".to_owned()),
            Some(pattern) => {
                self.rest = pattern;
                self.inner()?;
            }
            None if self.open => return Err("Implicit variable path glob after text glob.".to_owned()),
            None => self.expression.push_str(SEGMENT),
        }
        self.expression.push(')');
        self.variables.push(name.into());
        Ok(())
    }

    /// What a variable stands for.
    fn inner(&mut self) -> Result<(), String> {
        loop {
            if self.rest.starts_with('*') {
                self.operator()?;
            } else {
                let (text, rest) = split(self.rest);
                self.text(text, "")?;
                self.rest = rest;
            }
            match self.rest.strip_prefix('/') {
                None if self.rest.is_empty() => return Ok(()),
                Some(rest) if !rest.is_empty() => self.rest = rest,
                _ => return Err(format!("Invalid variable match: \"{}\"", self.rest)),
            }
            self.expression.push('/');
        }
    }
}

/// A text up to its first slash, and from there on.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
}

/// The parts of a new path; `None` where it is none.
fn parts(text: &str) -> Option<Vec<Part<&str>>> {
    if !text.starts_with('/') || text.contains("//") {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (literal, behind) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !literal.is_empty() {
            if !literal.split('/').all(|text| text.is_empty() || is_text(text)) {
                return None;
            }
            parts.push(Part::Text(literal.into()));
        }
        rest = match behind.strip_prefix('{') {
            Some(behind) => {
                let (name, rest) = behind.split_once('}').filter(|(name, _)| is_name(name))?;
                parts.push(Part::Variable(name));
                rest
            }
            None => behind,
        };
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured on Envoy 1.40.
    #[test]
    fn what_is_a_template() {
        for (text, error) in [
            ("a", "Invalid pattern: \"a\""),
            ("/é", "Invalid pattern: \"/é\""),
            ("/{a}/{a}", "Repeated variable name: \"a\""),
            ("/{a}/x{a}", "Repeated variable name: \"a\""),
            ("/**/*", "Glob after text glob."),
            ("/{a=**}/*", "Glob after text glob."),
            ("/{a=**}/{b}", "Implicit variable path glob after text glob."),
            ("/{1a}", "Invalid variable name: \"1a\""),
            ("/a{}b", "Invalid variable name: \"\""),
            ("/{a=}", "Empty variable match"),
            ("/{a", "Unmatched variable bracket in mixed pattern: \"{a\""),
            ("/x{b", "Invalid literal: \"x{b\""),
            ("/{a}/{b}/{c}/{d}/{e}/{f}", "Exceeded variable count limit (5)"),
            ("//", "Invalid literal: \"\""),
            ("/a//b", "Invalid literal: \"\""),
            ("/{a=b/}", "Invalid variable match: \"/\""),
            ("/{a=*x}", "Invalid variable match: \"x\""),
            ("/{a=[}", "Invalid literal: \"[\""),
            ("/{a}{b}", "Invalid suffix literal: \"{b}\""),
            ("/*{a}", "Invalid literal: \"{a}\""),
            ("/**b/c", "Prefix match not supported."),
            ("/a[{b}]", "Invalid prefix literal: \"a[\""),
            ("/a?b", "Invalid literal: \"a?b\""),
        ] {
            assert_eq!(PathTemplate::new(text).map(drop), Err(error.to_owned()), "{text}");
        }
        let long = PathTemplate::new("/x{a_very_long_variable_name}y").unwrap_err();
        assert!(long.starts_with("Invalid variable name length (length of \"a_very_long"), "{long}");
    }

    /// Measured on Envoy 1.40.
    #[test]
    fn what_templates_match() {
        for (text, yes, no) in [
            ("/", &["/", "/?q"][..], &["/a", ""][..]),
            ("/a/", &["/a/"], &["/a", "/a/b"]),
            ("/a*", &["/", "/a", "/aa"], &["/a*", "/ab"]),
            ("/*a", &["/xa", "/*a"], &["/a", "/x/a"]),
            ("/a**", &[], &["/a", "/a**"]),
            ("/***", &[], &["/***"]),
            ("/**a", &["/a", "/xa"], &["/a/"]),
            ("/a{b}", &["/ax", "/a*b"], &["/a", "/a/b"]),
            ("/{a}*", &["/", "/x"], &["/x/y"]),
            ("/{a=**}b/c", &["/ab/c", "/a/b/c"], &["/b", "/c"]),
            ("/{a=x/*}b", &["/x/yb"], &["/x/y"]),
            ("/a/{b}", &["/a/b", "/a/b?q=/c", "/a/b;p=1"], &["/a/b/c", "/a/b/", "/A/b", "/a/["]),
            ("/a/*/c", &["/a/b/c"], &["/a//c"]),
            ("/a/**", &["/a/", "/a//c"], &["/a"]),
            ("/a/{b=**}.js", &["/a/.js", "/a/x/y.js"], &["/a/xjs"]),
            ("/(a)/$b+c", &["/(a)/$b+c"], &["/a/bc"]),
            ("/**/", &["//", "/a/"], &["/a"]),
        ] {
            let template = PathTemplate::new(text).unwrap();
            let found: Vec<&str> =
                yes.iter().chain(no).copied().filter(|path| template.is_match(path.as_bytes())).collect();
            assert_eq!(found, yes, "{text}");
        }
    }

    #[test]
    fn new_paths() {
        for (template, text, path, new) in [
            ("/a/{b}", "/x/{b}", "/a/q", Some("/x/q")),
            ("/a/{b}", "/x", "/a/q", Some("/x")),
            ("/{a}/{b=**}", "/{b}/{a}{a}", "/q/w/e", Some("/w/e/qq")),
            ("/a/{b}", "/x/{b}", "/a/q/w", None),
        ] {
            let template = PathTemplate::new(template).unwrap();
            let parts = template.bind(parts(text).unwrap()).unwrap();
            let rewrite = PathTemplateRewrite { template: Arc::new(template), parts };
            assert_eq!(rewrite.apply(path.as_bytes()).as_deref(), new.map(str::as_bytes), "{path}");
        }
        for text in ["x/{b}", "//x", "/{b", "/{b}?x", "/[x]", "/{1}", "/{b=x}", "/a b"] {
            assert!(parts(text).is_none(), "{text}");
        }
        assert!(parts("/*=/{b}").is_some());
    }
}
