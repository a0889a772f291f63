//! Groups: which devices a set of filters takes, and why. All filters of a group must hold; a group without any is everybody.
//!
//! ```json
//! [{"field":"model","equals":"acme-gateway"},
//!  {"field":"firmware_version","semver":">=1.2, <2"},
//!  {"field":"attributes.site","in":["oslo","bergen"]},
//!  {"field":"device","prefix":"gw-"}]
//! ```

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use crate::names::{MAX_MODEL_BYTES, check_name};

/// Most filters of a group, and most values of one filter.
const MAX_FILTERS: usize = 32;
const MAX_VALUES: usize = 1000;
/// What the fields of attributes begin with.
const ATTRIBUTES: &str = "attributes.";

/// What is known of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub device: String,
    /// Its model.
    pub model: String,
    /// The version it runs, if it told.
    pub version: Option<String>,
    /// What the operator knows about it.
    pub attributes: BTreeMap<String, String>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Filter {
    field: Field,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Device,
    Model,
    Version,
    Attribute(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Equals(String),
    In(Vec<String>),
    Prefix(String),
    Semver(VersionReq),
}

/// A filter as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    field: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    equals: Option<String>,
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    any_of: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    semver: Option<String>,
}

impl TryFrom<Written> for Filter {
    type Error = String;

    fn try_from(written: Written) -> Result<Filter, String> {
        let field = Field::read(&written.field)?;
        let rule = match (written.equals, written.any_of, written.prefix, written.semver) {
            (Some(value), None, None, None) => Rule::Equals(value),
            (None, Some(values), None, None) if values.len() <= MAX_VALUES => Rule::In(values),
            (None, Some(_), None, None) => return Err(format!("`in` takes up to {MAX_VALUES} values")),
            (None, None, Some(prefix), None) => Rule::Prefix(prefix),
            (None, None, None, Some(range)) => {
                let range = VersionReq::parse(&range).map_err(|error| format!("`semver`: {error}"))?;
                Rule::Semver(range)
            }
            _ => return Err("a filter has exactly one of `equals`, `in`, `prefix` and `semver`".into()),
        };
        if rule.texts().any(|text| text.len() > MAX_MODEL_BYTES || text.chars().any(char::is_control)) {
            return Err(format!("a value has up to {MAX_MODEL_BYTES} bytes and no control characters"));
        }
        Ok(Filter { field, rule })
    }
}

impl From<Filter> for Written {
    fn from(Filter { field, rule }: Filter) -> Written {
        let mut written =
            Written { field: field.to_string(), equals: None, any_of: None, prefix: None, semver: None };
        match rule {
            Rule::Equals(value) => written.equals = Some(value),
            Rule::In(values) => written.any_of = Some(values),
            Rule::Prefix(prefix) => written.prefix = Some(prefix),
            Rule::Semver(range) => written.semver = Some(range.to_string()),
        }
        written
    }
}

impl Field {
    fn read(text: &str) -> Result<Field, String> {
        match text {
            "device" => Ok(Field::Device),
            "model" => Ok(Field::Model),
            "firmware_version" => Ok(Field::Version),
            _ => match text.strip_prefix(ATTRIBUTES) {
                Some(name) => {
                    check_name("field", name).map_err(|error| error.to_string())?;
                    Ok(Field::Attribute(name.to_owned()))
                }
                None => Err("`field` is device, model, firmware_version or attributes.NAME".into()),
            },
        }
    }

    fn of<'a>(&self, facts: &'a Facts) -> Option<&'a str> {
        match self {
            Field::Device => Some(&facts.device),
            Field::Model => Some(&facts.model),
            Field::Version => facts.version.as_deref(),
            Field::Attribute(name) => facts.attributes.get(name).map(String::as_str),
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Field::Device => f.write_str("device"),
            Field::Model => f.write_str("model"),
            Field::Version => f.write_str("firmware_version"),
            Field::Attribute(name) => write!(f, "{ATTRIBUTES}{name}"),
        }
    }
}

impl Rule {
    fn takes(&self, value: &str) -> bool {
        match self {
            Rule::Equals(wanted) => value == wanted,
            Rule::In(wanted) => wanted.iter().any(|wanted| value == wanted),
            Rule::Prefix(prefix) => value.starts_with(prefix.as_str()),
            // What is no semantic version is in no range of them.
            Rule::Semver(range) => Version::parse(value).is_ok_and(|version| range.matches(&version)),
        }
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        let texts: &[String] = match self {
            Rule::Equals(text) | Rule::Prefix(text) => std::slice::from_ref(text),
            Rule::In(values) => values,
            Rule::Semver(_) => &[],
        };
        texts.iter()
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Rule::Equals(value) => f.write_str(value),
            Rule::In(values) if values.len() > 5 => write!(f, "one of {} values", values.len()),
            Rule::In(values) => write!(f, "one of {}", values.join(", ")),
            Rule::Prefix(prefix) => write!(f, "{prefix}…"),
            Rule::Semver(range) => write!(f, "{range}"),
        }
    }
}

/// Whether a device is in a group, and the sentence that says why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// Whether it is.
    pub member: bool,
    /// `matches because …`, or the first filter that it fails.
    pub because: String,
}

/// Holds a device against the filters of a group.
pub fn membership(filters: &[Filter], facts: &Facts) -> Membership {
    let mut because = Vec::new();
    for Filter { field, rule } in filters {
        let Some(value) = field.of(facts) else {
            return Membership { member: false, because: format!("does not match: {field} is not known") };
        };
        if !rule.takes(value) {
            let because = format!("does not match: {field} is {value}, not {rule}");
            return Membership { member: false, because };
        }
        because.push(match rule {
            Rule::Equals(_) => format!("{field} is {value}"),
            Rule::In(_) | Rule::Prefix(_) | Rule::Semver(_) => format!("{field} is {value} ({rule})"),
        });
    }
    let because = if because.is_empty() {
        "matches because the group has no filters".to_owned()
    } else {
        format!("matches because {}", because.join(" and "))
    };
    Membership { member: true, because }
}

/// Refuses more filters than anybody means.
pub fn check_count(filters: &[Filter]) -> Result<(), String> {
    let count = filters.len();
    if count > MAX_FILTERS { Err(format!("{count} filters; allowed are {MAX_FILTERS}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(json: &str) -> Vec<Filter> {
        serde_json::from_str(json).expect(json)
    }

    fn gateway() -> Facts {
        Facts {
            device: "gw-1".into(),
            model: "acme".into(),
            version: Some("1.4.2".into()),
            attributes: BTreeMap::from([("site".into(), "oslo".into())]),
        }
    }

    #[test]
    fn table() {
        for (json, member, because) in [
            ("[]", true, "matches because the group has no filters"),
            (r#"[{"field":"model","equals":"acme"}]"#, true, "matches because model is acme"),
            (r#"[{"field":"model","equals":"ACME"}]"#, false, "does not match: model is acme, not ACME"),
            (
                r#"[{"field":"model","in":["x","acme"]},{"field":"device","prefix":"gw-"}]"#,
                true,
                "matches because model is acme (one of x, acme) and device is gw-1 (gw-…)",
            ),
            (
                r#"[{"field":"firmware_version","semver":">=1.2, <2"}]"#,
                true,
                "matches because firmware_version is 1.4.2 (>=1.2, <2)",
            ),
            (
                r#"[{"field":"firmware_version","semver":">=1.5"}]"#,
                false,
                "does not match: firmware_version is 1.4.2, not >=1.5",
            ),
            (
                r#"[{"field":"attributes.site","equals":"oslo"}]"#,
                true,
                "matches because attributes.site is oslo",
            ),
            (
                r#"[{"field":"attributes.none","prefix":""}]"#,
                false,
                "does not match: attributes.none is not known",
            ),
            (r#"[{"field":"model","in":[]}]"#, false, "does not match: model is acme, not one of "),
        ] {
            let given = filters(json);
            let expected = Membership { member, because: because.into() };
            assert_eq!(membership(&given, &gateway()), expected, "{json}");
            let again: Vec<Filter> = serde_json::from_str(&serde_json::to_string(&given).unwrap()).unwrap();
            assert_eq!(again, given);
        }
        let unknown = Facts { version: None, ..gateway() };
        assert!(!membership(&filters(r#"[{"field":"firmware_version","semver":"*"}]"#), &unknown).member);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in [
            "{}",
            r#"{"field":"model"}"#,
            r#"{"field":"colour","equals":"x"}"#,
            r#"{"field":"attributes.","equals":"x"}"#,
            r#"{"field":"attributes.a/b","equals":"x"}"#,
            r#"{"field":"model","equals":"x","prefix":"x"}"#,
            r#"{"field":"model","semver":"not a range"}"#,
            r#"{"field":"model","equals":"a\u0000"}"#,
            r#"{"field":"model","regex":".*"}"#,
        ] {
            assert!(serde_json::from_str::<Filter>(bad).is_err(), "{bad}");
        }
    }
}
