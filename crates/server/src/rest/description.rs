//! The description of the REST API of Web PubSub and of the lists, as `OpenAPI` 3.0.
//!
//! `openapi.json` is written by hand; the tests hold it against the routes, `compat/openapi` against the running service.

use http::StatusCode;

use crate::api_error::Answer;
use crate::http::text;

const DESCRIPTION: &str = include_str!("openapi.json");

/// Returns the description.
pub(crate) fn answer() -> Answer {
    text(StatusCode::OK, "application/json", DESCRIPTION)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use http::{Method, Uri};
    use serde_json::Value;

    use super::*;
    use crate::route::data_plane::ApiVersion;
    use crate::route::{Route, parse};

    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"];

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    fn route(method: &str, path: &str) -> Result<Route, u16> {
        let path = path.replace("{permission}", "sendToGroup").replace(['{', '}'], "");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        parse(&method, &path.parse::<Uri>().unwrap()).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn what_is_described_is_served_and_nothing_else() {
        let description = description();
        let mut operations = HashSet::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            for method in METHODS {
                let described = item.get(method.to_ascii_lowercase()).is_some();
                match route(method, path) {
                    Ok(route) => {
                        assert!(described, "{method} {path} is not described");
                        if let Route::DataPlane(call) = route {
                            operations.insert(std::mem::discriminant(&call.operation));
                        }
                    }
                    Err(status) => {
                        assert!(!described && status == 405, "{method} {path}: {status}");
                    }
                }
            }
        }
        // All but the one that only the oldest version has.
        assert_eq!(operations.len(), 11);
    }

    #[test]
    fn every_reference_leads_somewhere_and_nothing_is_left_over() {
        fn collect(value: &Value, found: &mut BTreeSet<String>) {
            if let Some(target) = value.get("$ref") {
                found.insert(target.as_str().unwrap().to_owned());
            }
            let members = value.as_object().into_iter().flat_map(serde_json::Map::values);
            for member in members.chain(value.as_array().into_iter().flatten()) {
                collect(member, found);
            }
        }
        let description = description();
        let mut used = BTreeSet::new();
        collect(&description, &mut used);
        let mut defined = BTreeSet::new();
        for kind in ["parameters", "requestBodies", "responses", "schemas"] {
            for name in description["components"][kind].as_object().unwrap().keys() {
                defined.insert(format!("#/components/{kind}/{name}"));
            }
        }
        assert_eq!(used, defined);
    }

    #[test]
    fn names_and_versions_are_what_they_are_elsewhere() {
        let description = description();
        let schema = &description["components"]["parameters"]["api-version"]["schema"];
        let named: Vec<&str> =
            schema["enum"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        let mut all = ApiVersion::ALL;
        all.sort_unstable();
        assert_eq!(named, all);
        let mut ids = HashSet::new();
        for item in description["paths"].as_object().unwrap().values() {
            for operation in METHODS.iter().filter_map(|name| item.get(name.to_ascii_lowercase())) {
                assert!(ids.insert(operation["operationId"].as_str().unwrap()));
            }
        }
    }
}
