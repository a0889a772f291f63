//! The description of the HTTP surface, as OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.1>): made from the list of routes, and from
//! `shapes.json`, which says what JSON looks like.
//!
//! A shape there is an object of fields. The value of a field names a type or another shape; `?` after it: or null, `[]`: a list of them, `{}`: an
//! object of them by name. A field with `?` after its name may be left out. `"+"` takes over the fields of another shape, and `"…"`: other fields
//! may be there. Nothing else may.

use std::sync::OnceLock;

use axum::Json;
use axum::http::Method;
use serde_json::{Map, Value, json};

use super::ApiError;
use super::routes::{Needs, Route, routes};

/// A status, and a code that an error answer with it can have.
pub(super) type Fail = (u16, &'static str);

/// Types, shapes and parameters.
const SHAPES: &str = include_str!("openapi/shapes.json");

/// What is said about a route. Bodies are named by a shape, or by a media type when they are not JSON; nothing is no body.
#[derive(Debug, Clone, Default)]
pub(super) struct Operation {
    summary: &'static str,
    query: Vec<&'static str>,
    takes: Option<(&'static str, bool)>,
    gives: Vec<(u16, &'static str)>,
    fails: Vec<Fail>,
}

/// Begins what is said about a route.
pub(super) fn operation(summary: &'static str) -> Operation {
    Operation { summary, ..Operation::default() }
}

impl Operation {
    /// Parameters of the query, by their names in `shapes.json`.
    pub(super) fn query(mut self, names: &[&'static str]) -> Self {
        self.query.extend(names);
        self
    }

    /// A header that means something here.
    pub(super) fn header(self, name: &'static str) -> Self {
        self.query(&[name])
    }

    /// A body that must be there.
    pub(super) fn takes(mut self, body: &'static str) -> Self {
        self.takes = Some((body, true));
        self
    }

    /// A body that may be there.
    pub(super) fn may_take(mut self, body: &'static str) -> Self {
        self.takes = Some((body, false));
        self
    }

    /// An answer.
    pub(super) fn gives(mut self, status: u16, body: &'static str) -> Self {
        self.gives.push((status, body));
        self
    }

    /// Errors that are its own.
    pub(super) fn fails(mut self, fails: &[Fail]) -> Self {
        self.fails.extend(fails);
        self
    }
}

/// `GET /api/v1/openapi.json`.
pub(super) async fn answer() -> Result<Json<&'static Value>, ApiError> {
    static DOCUMENT: OnceLock<Result<Value, String>> = OnceLock::new();
    match DOCUMENT.get_or_init(|| document().map_err(|error| error.to_string())) {
        Ok(document) => Ok(Json(document)),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Makes the document.
pub fn document() -> Result<Value, serde_json::Error> {
    let known: Map<String, Value> = serde_json::from_str(SHAPES)?;
    let part = |name: &str| known.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let shapes = part("shapes");
    let mut schemas = part("types");
    for (name, fields) in &shapes {
        schemas.insert(name.clone(), object(fields, &shapes));
    }
    let mut paths = Map::new();
    for route in routes() {
        let operations = paths.entry(route.rule.path).or_insert_with(|| json!({}));
        if let Some(operations) = operations.as_object_mut() {
            operations.insert(route.rule.method.as_str().to_lowercase(), describe(&route));
        }
    }
    let bearer = |who: &str| json!({ "type": "http", "scheme": "bearer", "description": who });
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "otaserver", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
            "description": "Signed updates for a fleet. GET stands for HEAD, too. Every error is JSON with a stable code.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": part("parameters"),
            "securitySchemes": {
                "operator": bearer("The token of an operator, whose role is enough"),
                "device": bearer("The token of the device, if it has one or the server asks for them"),
            },
        },
    }))
}

fn describe(route: &Route) -> Value {
    let (rule, says) = (&route.rule, &route.says);
    let mut operation =
        json!({ "summary": says.summary, "operationId": identifier(&rule.method, rule.path) });
    let in_path = rule
        .path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .map(|name| format!("path-{name}"));
    let parameters: Vec<Value> = in_path
        .chain(says.query.iter().map(|name| (*name).to_owned()))
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect();
    let mut responses = Map::new();
    for (status, body) in &says.gives {
        let response =
            responses.entry(status.to_string()).or_insert_with(|| json!({ "description": "done" }));
        add_content(response, body, &schema(body));
    }
    for (status, codes) in by_status(fails(route)) {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["error"],
            "properties": { "error": {
                "type": "object", "additionalProperties": false, "required": ["code", "message"],
                "properties": { "code": { "enum": codes }, "message": { "type": "string", "minLength": 1 } },
            } },
        });
        let mut response = json!({ "description": "not done" });
        add_content(&mut response, "Error", &schema);
        responses.insert(status.to_string(), response);
    }
    if let Some(fields) = operation.as_object_mut() {
        fields.insert("parameters".into(), parameters.into());
        fields.insert("responses".into(), responses.into());
        fields.insert("security".into(), security(rule.needs));
        if let Needs::Role(role) = rule.needs {
            fields.insert("x-role".into(), role.as_str().into());
        }
        if let Some((body, required)) = says.takes {
            let mut request = json!({ "required": required });
            add_content(&mut request, body, &schema(body));
            fields.insert("requestBody".into(), request);
        }
    }
    operation
}

/// What any route of its kind can answer, and its own.
fn fails(route: &Route) -> Vec<Fail> {
    let mut fails = route.says.fails.clone();
    fails.extend([(500, "INTERNAL"), (503, "DATABASE")]);
    if route.rule.needs != Needs::Nothing {
        fails.extend([(401, "NOT_AUTHORIZED"), (403, "NOT_AUTHORIZED")]);
    }
    if route.rule.method != Method::GET {
        fails.push((507, "QUOTA"));
    }
    fails
}

fn by_status(mut fails: Vec<Fail>) -> Vec<(u16, Vec<&'static str>)> {
    fails.sort_unstable();
    fails.dedup();
    let mut grouped: Vec<(u16, Vec<&'static str>)> = Vec::new();
    for (status, code) in fails {
        match grouped.last_mut() {
            Some((last, codes)) if *last == status => codes.push(code),
            _ => grouped.push((status, vec![code])),
        }
    }
    grouped
}

fn security(needs: Needs) -> Value {
    match needs {
        Needs::Role(_) => json!([{ "operator": [] }]),
        Needs::Device => json!([{ "device": [] }, {}]),
        Needs::Nothing => json!([]),
    }
}

/// `listArtifacts` would be nicer; this is unique without anybody's care.
fn identifier(method: &Method, path: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("{}{}", method.as_str().to_lowercase(), path.chars().map(word).collect::<String>())
}

/// Adds a body to a request or an answer.
fn add_content(to: &mut Value, body: &str, schema: &Value) {
    let media = if body.contains('/') { body } else { "application/json" };
    if let Some(fields) = to.as_object_mut().filter(|_| !body.is_empty()) {
        let content = fields.entry("content").or_insert_with(|| json!({}));
        if let Some(content) = content.as_object_mut() {
            content.insert(media.to_owned(), json!({ "schema": schema }));
        }
    }
}

/// The schema of a body. What is not JSON is bytes.
fn schema(body: &str) -> Value {
    if body.contains('/') { json!({}) } else { reference(body) }
}

/// The schema that a word of `shapes.json` stands for.
fn reference(word: &str) -> Value {
    if let Some(inner) = word.strip_suffix('?') {
        json!({ "anyOf": [reference(inner), { "type": "null" }] })
    } else if let Some(inner) = word.strip_suffix("[]") {
        json!({ "type": "array", "items": reference(inner) })
    } else if let Some(inner) = word.strip_suffix("{}") {
        json!({ "type": "object", "additionalProperties": reference(inner) })
    } else {
        json!({ "$ref": format!("#/components/schemas/{word}") })
    }
}

/// The schema of a shape.
fn object(fields: &Value, shapes: &Map<String, Value>) -> Value {
    let (mut properties, mut required, mut open) = (Map::new(), Vec::new(), false);
    let mut rest = vec![fields];
    while let Some(fields) = rest.pop().and_then(Value::as_object) {
        for (name, word) in fields {
            let word = word.as_str().unwrap_or_default();
            match (name.as_str(), name.strip_suffix('?')) {
                ("+", _) => rest.extend(shapes.get(word)),
                ("…", _) => open = true,
                (_, Some(name)) => drop(properties.insert(name.to_owned(), reference(word))),
                (name, None) => {
                    properties.insert(name.to_owned(), reference(word));
                    required.push(name);
                }
            }
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": open })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str().filter(|_| name == "$ref") {
                        Some(text) => found.push(text),
                        None => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    /// Nothing in the document names something that is not there, and nothing is there that nobody names.
    #[test]
    fn every_reference_leads_somewhere() {
        let document = document().unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
        for kind in ["schemas", "parameters"] {
            for name in document["components"][kind].as_object().unwrap().keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(found.contains(&reference.as_str()), "nobody names {reference}");
            }
        }
    }

    #[test]
    fn words_of_shapes() {
        for (word, expected) in [
            ("A", json!({ "$ref": "#/components/schemas/A" })),
            (
                "A[]?",
                json!({ "anyOf": [{ "type": "array", "items": { "$ref": "#/components/schemas/A" } }, { "type": "null" }] }),
            ),
            (
                "A{}",
                json!({ "type": "object", "additionalProperties": { "$ref": "#/components/schemas/A" } }),
            ),
        ] {
            assert_eq!(reference(word), expected);
        }
        let shapes = json!({ "A": { "x": "T" } });
        let made = object(&json!({ "+": "A", "y?": "T" }), shapes.as_object().unwrap());
        assert_eq!((&made["required"], &made["additionalProperties"]), (&json!(["x"]), &json!(false)));
        assert_eq!(made["properties"].as_object().unwrap().len(), 2);
    }
}
