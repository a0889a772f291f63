//! Every route of operators, with the role it asks for. The router and the gate are made from this one list, so that no route can be
//! open by being forgotten; what is not in the list asks for an admin.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, patch, post, put};

use super::{App, channels, fleet, groups, metrics, operators, progress, records, releases, tokens, upload};
use crate::role::Role;

/// What a route asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The method; `GET` stands for `HEAD`, too.
    pub method: Method,
    /// The path with the names of its parts in braces.
    pub path: String,
    /// The least role.
    pub role: Role,
}

type Route = (Method, &'static str, Role, MethodRouter<Arc<App>>);

#[rustfmt::skip]
fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Viewer};
    let (read, add, set, change, remove) = (Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE);
    vec![
        (read.clone(),   "/artifacts",                         Viewer,   get(operators::artifacts)),
        (add.clone(),    "/artifacts",                         Operator, post(upload::artifact)),
        (remove.clone(), "/artifacts/{sha256}",                Operator, delete(operators::withdraw_artifact)),
        (read.clone(),   "/deltas",                            Viewer,   get(operators::deltas)),
        (add.clone(),    "/deltas",                            Operator, post(upload::delta)),
        (remove.clone(), "/deltas/{sha256}",                   Operator, delete(operators::withdraw_delta)),
        (add.clone(),    "/channels",                          Operator, post(channels::publish)),
        (read.clone(),   "/devices",                           Viewer,   get(operators::devices)),
        (read.clone(),   "/devices/{device}",                  Viewer,   get(fleet::device)),
        (set.clone(),    "/devices/{device}/attributes",       Operator, put(fleet::set_attributes)),
        (add.clone(),    "/devices/{device}/token",            Admin,    post(tokens::add_device)),
        (remove.clone(), "/devices/{device}/token",            Admin,    delete(tokens::remove_device)),
        (read.clone(),   "/reports",                           Viewer,   get(operators::reports)),
        (read.clone(),   "/device-groups",                     Viewer,   get(groups::list)),
        (add.clone(),    "/device-groups",                     Operator, post(groups::add)),
        (read.clone(),   "/device-groups/{group}",             Viewer,   get(groups::one)),
        (remove.clone(), "/device-groups/{group}",             Operator, delete(groups::remove)),
        (read.clone(),   "/device-groups/{group}/devices",     Viewer,   get(groups::devices)),
        (read.clone(),   "/releases",                          Viewer,   get(releases::list)),
        (add.clone(),    "/releases",                          Operator, post(releases::add)),
        (read.clone(),   "/releases/{release}",                Viewer,   get(releases::one)),
        (change,         "/releases/{release}",                Operator, patch(releases::set_policy)),
        (read.clone(),   "/releases/{release}/devices",        Viewer,   get(releases::devices)),
        (add.clone(),    "/releases/{release}/devices/{device}/{act}", Operator, post(releases::decide)),
        (add.clone(),    "/releases/{release}/{turn}",         Operator, post(releases::turn)),
        (read.clone(),   "/fleet",                             Viewer,   get(fleet::overview)),
        (read.clone(),   "/activity",                          Viewer,   get(fleet::activity)),
        (read.clone(),   "/statistics",                        Viewer,   get(records::statistics)),
        (read.clone(),   "/records",                           Viewer,   get(records::list)),
        (read.clone(),   "/progress",                          Viewer,   get(progress::listen)),
        (read.clone(),   "/metrics",                           Viewer,   get(metrics::all)),
        (read.clone(),   "/whoami",                            Viewer,   get(tokens::whoami)),
        (read.clone(),   "/audit",                             Operator, get(fleet::audit)),
        (read,           "/operators",                         Admin,    get(tokens::list)),
        (add,            "/operators",                         Admin,    post(tokens::add)),
        (remove,         "/operators/{name}",                  Admin,    delete(tokens::remove)),
    ]
}

/// Builds the routes below `/api/v1`.
pub(super) fn operators() -> Router<Arc<App>> {
    routes().into_iter().fold(Router::new(), |router, (_, path, _, handler)| router.route(path, handler))
}

/// What each of them asks for.
pub fn operator_rules() -> Vec<Rule> {
    let rule = |(method, path, role, _): Route| Rule { method, path: format!("/api/v1{path}"), role };
    routes().into_iter().map(rule).collect()
}

/// The least role for a request; `path` is that of the route that was found.
pub(super) fn role(rules: &[Rule], method: &Method, path: &str) -> Role {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let rule = rules.iter().find(|rule| rule.method == *method && rule.path == path);
    rule.map_or(Role::Admin, |rule| rule.role)
}
