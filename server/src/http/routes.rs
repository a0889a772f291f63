//! Every route of the server: what it asks of whoever comes, who answers, and what is said about it. The router, the gate and the document
//! that describes them are made from this one list, so that no route can be open by being forgotten, and none without description.
//!
//! Only the dashboard's files are elsewhere: they are the same for everybody.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, patch, post, put};

use super::openapi::{self, Fail, Operation, operation};
use super::{
    App, channels, devices, download, fleet, groups, health, metrics, operators, progress, records, releases,
    tokens, upload, webhooks,
};
use crate::role::Role;

/// Where the routes of operators begin: behind the gate.
pub(super) const OPERATORS: &str = "/api/v1";

/// Whom a route lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// An operator, with this role at the least.
    Role(Role),
    /// A device, or who may speak for one.
    Device,
    /// Nothing.
    Nothing,
}

/// What a route asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The method; `GET` stands for `HEAD`, too.
    pub method: Method,
    /// The path with the names of its parts in braces.
    pub path: &'static str,
    /// Whom it lets in.
    pub needs: Needs,
}

/// A route.
pub(super) struct Route {
    pub(super) rule: Rule,
    handler: MethodRouter<Arc<App>>,
    pub(super) says: Operation,
}

/// A route as it is written down.
type Line<'a> = (&'a Method, &'static str, Needs, MethodRouter<Arc<App>>, Operation);

/// A part of the path that may be no name, or the name of nothing.
const NAMED: &[Fail] = &[(400, "INVALID_NAME"), (404, "NOT_FOUND")];
/// A query that cannot be read.
const QUERY: &[Fail] = &[(400, "INVALID_REQUEST")];
/// A query with names in it.
const NAMES: &[Fail] = &[(400, "INVALID_REQUEST"), (400, "INVALID_NAME")];
/// A small body.
const BODY: &[Fail] = &[
    (400, "INVALID_JSON"),
    (400, "INVALID_NAME"),
    (400, "INVALID_REQUEST"),
    (408, "NET_STALLED"),
    (413, "SIZE_EXCEEDED"),
];
/// What is there does not allow it.
const CONFLICT: &[Fail] = &[(409, "CONFLICT")];
/// An upload, before it is looked at.
const UPLOAD: &[Fail] = &[
    (400, "INVALID_REQUEST"),
    (408, "NET_STALLED"),
    (413, "SIZE_EXCEEDED"),
    (415, "INVALID_REQUEST"),
    (503, "BUSY"),
    (503, "TRUST_INVALID"),
];
/// What is wrong with the content of a bundle, a delta or a channel document.
const CONTENT: &[Fail] = &[
    (422, "NOT_A_BUNDLE"),
    (422, "BUNDLE_FORMAT"),
    (422, "BUNDLE_TRUNCATED"),
    (422, "SIG_MISSING"),
    (422, "SIG_INVALID"),
    (422, "SIG_UNTRUSTED"),
    (422, "MANIFEST_INVALID"),
    (422, "INDEX_INVALID"),
    (422, "HASH_MISMATCH"),
    (422, "SIZE_EXCEEDED"),
    (422, "TRUST_INVALID"),
    (422, "METADATA_INVALID"),
    (422, "KEYS_GAP"),
    (422, "KEYS_REPLAY"),
    (422, "DECRYPT_NO_KEY"),
    (422, "DECRYPT_FAILED"),
    (422, "KEY_INVALID"),
    (422, "INVALID_OPTION"),
];
/// A file, or a part of it.
const FILE: &[Fail] = &[
    (400, "INVALID_NAME"),
    (404, "NOT_FOUND"),
    (410, "WITHDRAWN"),
    (412, "SOURCE_CHANGED"),
    (416, "NET_RANGE"),
];
/// As many devices ask as the server answers at a time.
const CROWD: &[Fail] = &[(429, "BUSY")];
/// The database is full.
const FULL: &[Fail] = &[(507, "QUOTA")];

#[rustfmt::skip]
pub(super) fn routes() -> Vec<Route> {
    let [viewer, operator, admin] = [Role::Viewer, Role::Operator, Role::Admin].map(Needs::Role);
    let (device, nobody) = (Needs::Device, Needs::Nothing);
    let (read, add, set, change, remove) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    let [files, names, numbers] = ["after-file", "after-name", "after-number"].map(|after| ["limit", after]);
    let list: Vec<Line> = vec![
        (&read,   "/api/v1/artifacts",                         viewer,   get(operators::artifacts),          operation("Artifacts, newest first").query(&files).gives(200, "Artifacts").fails(NAMES)),
        (&add,    "/api/v1/artifacts",                         operator, post(upload::artifact),             operation("Takes a bundle").takes("application/octet-stream").gives(201, "Artifact").gives(200, "Artifact").fails(UPLOAD).fails(CONTENT)),
        (&remove, "/api/v1/artifacts/{sha256}",                operator, delete(operators::withdraw_artifact), operation("Withdraws an artifact, and the deltas to it").gives(204, "").fails(NAMED)),
        (&read,   "/api/v1/deltas",                            viewer,   get(operators::deltas),             operation("Deltas, newest first").query(&files).gives(200, "Deltas").fails(NAMES)),
        (&add,    "/api/v1/deltas",                            operator, post(upload::delta),                operation("Takes a delta").takes("application/octet-stream").gives(201, "Delta").gives(200, "Delta").fails(UPLOAD).fails(CONTENT).fails(&[(409, "RELEASE_UNKNOWN")])),
        (&remove, "/api/v1/deltas/{sha256}",                   operator, delete(operators::withdraw_delta),  operation("Withdraws a delta").gives(204, "").fails(NAMED)),
        (&add,    "/api/v1/channels",                          operator, post(channels::publish),            operation("Takes a channel document").takes("application/toml").gives(204, "").fails(BODY).fails(CONTENT).fails(&[(409, "METADATA_REPLAY"), (503, "TRUST_INVALID")])),
        (&read,   "/api/v1/devices",                           viewer,   get(operators::devices),            operation("Devices, by name").query(&names).gives(200, "Devices").fails(NAMES)),
        (&read,   "/api/v1/devices/{device}",                  viewer,   get(fleet::device),                 operation("Everything about one device").gives(200, "DeviceInFull").fails(NAMED)),
        (&set,    "/api/v1/devices/{device}/attributes",       operator, put(fleet::set_attributes),         operation("Replaces what operators know about a device").takes("Attributes").gives(204, "").fails(BODY)),
        (&add,    "/api/v1/devices/{device}/token",            admin,    post(tokens::add_device),           operation("Gives a device a token").gives(201, "DeviceToken").fails(&[(400, "INVALID_NAME")])),
        (&remove, "/api/v1/devices/{device}/token",            admin,    delete(tokens::remove_device),      operation("Takes a device's token back").gives(204, "").fails(NAMED)),
        (&read,   "/api/v1/reports",                           viewer,   get(operators::reports),            operation("The reports of a device, newest first").query(&["device"]).gives(200, "Reports").fails(NAMES)),
        (&read,   "/api/v1/device-groups",                     viewer,   get(groups::list),                  operation("Groups, by name").gives(200, "Groups")),
        (&add,    "/api/v1/device-groups",                     operator, post(groups::add),                  operation("Makes a group; the same one again is fine").takes("NewGroup").gives(201, "Group").fails(BODY).fails(CONFLICT)),
        (&read,   "/api/v1/device-groups/{group}",             viewer,   get(groups::one),                   operation("One group").gives(200, "Group").fails(NAMED)),
        (&remove, "/api/v1/device-groups/{group}",             operator, delete(groups::remove),             operation("Removes a group that no release is for").gives(204, "").fails(NAMED).fails(CONFLICT)),
        (&read,   "/api/v1/device-groups/{group}/devices",     viewer,   get(groups::devices),               operation("Who is in a group, and why").query(&names).gives(200, "GroupDevices").fails(NAMED).fails(QUERY)),
        (&read,   "/api/v1/releases",                          viewer,   get(releases::list),                operation("Releases, newest first").gives(200, "Releases")),
        (&add,    "/api/v1/releases",                          operator, post(releases::add),                operation("Declares a release").takes("NewRelease").gives(201, "Release").fails(BODY).fails(CONFLICT)),
        (&read,   "/api/v1/releases/{release}",                viewer,   get(releases::one),                 operation("One release, held against the whole fleet").gives(200, "ReleaseInFull").fails(NAMED)),
        (&change, "/api/v1/releases/{release}",                operator, patch(releases::set_policy),        operation("Replaces the policy of a release").takes("NewPolicy").gives(200, "ReleaseInFull").fails(NAMED).fails(BODY).fails(CONFLICT)),
        (&read,   "/api/v1/releases/{release}/devices",        viewer,   get(releases::devices),             operation("Where devices stand in a release").query(&["limit", "after-name", "step"]).gives(200, "ReleaseDevices").fails(NAMED).fails(QUERY)),
        (&add,    "/api/v1/releases/{release}/devices/{device}/{act}", operator, post(releases::decide),     operation("Lets one device try again, or takes it out").gives(204, "").fails(NAMED)),
        (&add,    "/api/v1/releases/{release}/{turn}",         operator, post(releases::turn),               operation("Starts, promotes, pauses, resumes, completes or aborts a release").may_take("Reason").gives(200, "Release").fails(NAMED).fails(BODY).fails(CONFLICT)),
        (&read,   "/api/v1/fleet",                             viewer,   get(fleet::overview),               operation("The fleet in numbers").gives(200, "Fleet")),
        (&read,   "/api/v1/activity",                          viewer,   get(fleet::activity),               operation("Steps of devices and turns of releases, newest first").query(&["limit", "after-number", "of-device", "of-release"]).gives(200, "Activity").fails(NAMES)),
        (&read,   "/api/v1/statistics",                        viewer,   get(records::statistics),           operation("What the records come to").query(&["of-device", "of-release", "of-group", "from", "to"]).gives(200, "Statistics").fails(NAMES)),
        (&read,   "/api/v1/records",                           viewer,   get(records::list),                 operation("One record per try of a device, newest first").query(&["of-device", "of-release", "of-group", "from", "to", "format", "record-limit", "after-record"]).gives(200, "Records").gives(200, "text/csv").fails(NAMES)),
        (&read,   "/api/v1/progress",                          viewer,   get(progress::listen),              operation("A WebSocket with the latest word of every device").query(&["of-device", "of-release", "of-group"]).gives(101, "").fails(NAMES).fails(CROWD).fails(&[(426, "INVALID_REQUEST")])),
        (&read,   "/api/v1/metrics",                           viewer,   get(metrics::all),                  operation("Numbers for Prometheus").gives(200, "text/plain")),
        (&read,   "/api/v1/openapi.json",                      viewer,   get(openapi::answer),               operation("This document").gives(200, "Document")),
        (&read,   "/api/v1/whoami",                            viewer,   get(tokens::whoami),                operation("Who asks").gives(200, "Whoami")),
        (&read,   "/api/v1/audit",                             operator, get(fleet::audit),                  operation("Who changed what, newest first").query(&numbers).gives(200, "Audit").fails(QUERY)),
        (&read,   "/api/v1/operators",                         admin,    get(tokens::list),                  operation("Operators, by name").gives(200, "Operators")),
        (&add,    "/api/v1/operators",                         admin,    post(tokens::add),                  operation("Gives an operator a token").takes("NewOperator").gives(201, "OperatorToken").fails(BODY).fails(CONFLICT)),
        (&remove, "/api/v1/operators/{name}",                  admin,    delete(tokens::remove),             operation("Takes an operator's token back").gives(204, "").fails(NAMED)),
        (&read,   "/api/v1/webhooks",                          admin,    get(webhooks::list),                operation("Webhooks, by name").gives(200, "Webhooks")),
        (&add,    "/api/v1/webhooks",                          admin,    post(webhooks::add),                operation("Adds a webhook").takes("NewWebhook").gives(201, "WebhookSecret").fails(BODY).fails(CONFLICT)),
        (&remove, "/api/v1/webhooks/{webhook}",                admin,    delete(webhooks::remove),           operation("Removes a webhook, and what was still to be delivered").gives(204, "").fails(NAMED)),
        (&read,   "/api/v1/webhooks/{webhook}/deliveries",     admin,    get(webhooks::deliveries),          operation("What came of the deliveries of a webhook, newest first").query(&numbers).gives(200, "Deliveries").fails(NAMED).fails(QUERY)),
        (&read,   "/device/v1/update",                         device,   get(devices::update),               operation("What a device shall have").query(&["device", "compatible", "version", "sequence", "running", "boot_id", "state"]).gives(200, "Offer").gives(204, "").fails(NAMES).fails(CROWD).fails(FULL)),
        (&read,   "/device/v1/channel",                        device,   get(channels::newest),              operation("The channel document of a model").query(&["compatible"]).gives(200, "application/toml").gives(204, "").fails(NAMES)),
        (&add,    "/device/v1/reports",                        device,   post(devices::report),              operation("How an update ended").takes("Report").gives(204, "").fails(BODY).fails(CROWD)),
        (&add,    "/device/v1/progress",                       device,   post(progress::report),             operation("How far an update is").takes("Progress").gives(204, "").fails(BODY).fails(CROWD)),
        (&read,   "/artifacts/{file}",                         nobody,   get(download::artifact),            operation("A bundle, or ranges of it").header("Range").gives(200, "application/vnd.otad.bundle").gives(206, "application/vnd.otad.bundle").gives(206, "multipart/byteranges").gives(304, "").fails(FILE)),
        (&read,   "/deltas/{delta}",                           nobody,   get(download::delta),               operation("A delta, or ranges of it").header("Range").gives(200, "application/vnd.otad.delta").gives(206, "application/vnd.otad.delta").gives(206, "multipart/byteranges").gives(304, "").fails(FILE)),
        (&read,   "/healthz",                                  nobody,   get(health),                        operation("Whether the server can do its work").gives(200, "Health").fails(&[(503, "STATE_IO")])),
    ];
    let route = |(method, path, needs, handler, says): Line| {
        Route { rule: Rule { method: method.clone(), path, needs }, handler, says }
    };
    list.into_iter().map(route).collect()
}

/// Builds the routes of operators, without [`OPERATORS`] before them, and those of everybody else.
pub(super) fn routers() -> (Router<Arc<App>>, Router<Arc<App>>) {
    routes().into_iter().fold((Router::new(), Router::new()), |(operators, others), route| {
        match route.rule.path.strip_prefix(OPERATORS) {
            Some(path) => (operators.route(path, route.handler), others),
            None => (operators, others.route(route.rule.path, route.handler)),
        }
    })
}

/// What each of them asks for.
pub fn rules() -> Vec<Rule> {
    routes().into_iter().map(|route| route.rule).collect()
}

/// The least role for a request; `path` is that of the route that was found. What is not in the list asks for an admin.
pub(super) fn role(rules: &[Rule], method: &Method, path: &str) -> Role {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    match rules.iter().find(|rule| rule.method == *method && rule.path == path).map(|rule| rule.needs) {
        Some(Needs::Role(role)) => role,
        Some(Needs::Device | Needs::Nothing) | None => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W3: what is behind the gate and what asks for a role is the same.
    #[test]
    fn w3_operators_are_behind_the_gate() {
        for rule in rules() {
            let gated = rule.path.starts_with(&format!("{OPERATORS}/"));
            assert_eq!(gated, matches!(rule.needs, Needs::Role(_)), "{}", rule.path);
            assert_eq!(rule.path.starts_with("/device/"), rule.needs == Needs::Device, "{}", rule.path);
        }
    }
}
