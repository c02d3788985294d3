//! The API reference, as Markdown, from the CRDs' own schemas: what the API server knows and no more.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

const HEAD: &str = "\
<!-- Made by `make generate` from the types in crds/src; do not edit. -->
# API reference: `vigia.dev/v1alpha1`

Every field that the API server knows. *Required* fields have no default. The sentences under
*Rules* are those with which `kubectl apply` refuses an object.
";

/// One page with a section for each kind.
pub fn markdown(crds: &[CustomResourceDefinition]) -> String {
    let mut page = HEAD.to_owned();
    page.push('\n');
    for crd in crds {
        let kind = &crd.spec.names.kind;
        line(&mut page, &format!("- [{kind}](#{})", kind.to_lowercase()));
    }
    for crd in crds {
        section(&mut page, crd);
    }
    page
}

fn section(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let version = &crd.spec.versions[0];
    let Some(schema) = version
        .schema
        .as_ref()
        .and_then(|s| s.open_api_v3_schema.as_ref())
    else {
        return;
    };
    line(page, &format!("\n## {}\n", names.kind));
    if let Some(text) = &schema.description {
        line(page, &sentence(text));
        page.push('\n');
    }
    let short = names
        .short_names
        .iter()
        .flatten()
        .map(|n| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ");
    line(
        page,
        &format!(
            "{} · `kubectl get {}` · short: {short}",
            crd.spec.scope, names.plural
        ),
    );
    for (part, title) in [("spec", "Spec"), ("status", "Status")] {
        let Some(root) = schema.properties.as_ref().and_then(|p| p.get(part)) else {
            continue;
        };
        line(page, &format!("\n### {} {title}\n", names.kind));
        line(page, "| field | type | default | what it says |");
        line(page, "| --- | --- | --- | --- |");
        fields(page, root, part);
    }
    let mut rules = Vec::new();
    messages(schema, "", &mut rules);
    if !rules.is_empty() {
        line(page, &format!("\n### {} Rules\n", names.kind));
        for (path, message) in rules {
            let at = if path.is_empty() { names.kind.clone() } else { path };
            line(page, &format!("- `{at}`: {message}"));
        }
    }
}

/// The rows of an object's properties, and of theirs.
fn fields(page: &mut String, schema: &JSONSchemaProps, path: &str) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let default = match &field.default {
            Some(value) => format!("`{}`", cell(&value.0.to_string())),
            None if required.contains(name) => "*required*".to_owned(),
            None => String::new(),
        };
        let text = field.description.as_deref().map(sentence).unwrap_or_default();
        line(
            page,
            &format!("| `{path}` | {} | {default} | {} |", type_of(field), cell(&text)),
        );
        // Conditions are Kubernetes' own type and selectors too: their fields are explained there.
        if name == "conditions" || name == "podSelector" {
            continue;
        }
        match (&field.items, &field.additional_properties) {
            (Some(JSONSchemaPropsOrArray::Schema(item)), _) => fields(page, item, &format!("{path}[]")),
            (_, Some(JSONSchemaPropsOrBool::Schema(value))) => fields(page, value, &format!("{path}.*")),
            _ => fields(page, field, &path),
        }
    }
}

/// The type in the words of a manifest's writer.
fn type_of(field: &JSONSchemaProps) -> String {
    if let Some(values) = &field.enum_ {
        return values
            .iter()
            .filter_map(|v| match &v.0 {
                Value::String(text) => Some(format!("`{text}`")),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join(", ");
    }
    if field.x_kubernetes_int_or_string == Some(true) {
        return "integer or string".to_owned();
    }
    let bounds = match (field.minimum, field.maximum) {
        (Some(low), Some(high)) => format!(" {low}–{high}"),
        (Some(low), None) => format!(" ≥ {low}"),
        _ => String::new(),
    };
    match (field.type_.as_deref(), &field.items) {
        (Some("array"), Some(JSONSchemaPropsOrArray::Schema(item))) => {
            let most = field
                .max_items
                .map(|n| format!(", at most {n}"))
                .unwrap_or_default();
            format!("list of {}{most}", type_of(item))
        }
        (Some("string"), _) if field.format.as_deref() == Some("date-time") => "time".to_owned(),
        (Some("object"), _) if field.additional_properties.is_some() => "map".to_owned(),
        (Some(name), _) => format!("{name}{bounds}"),
        (None, _) => "any".to_owned(),
    }
}

/// The messages of every CEL rule at or below a schema, with the path of its field.
fn messages(schema: &JSONSchemaProps, path: &str, rules: &mut Vec<(String, String)>) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        if let Some(message) = &rule.message {
            rules.push((path.to_owned(), message.clone()));
        }
    }
    for (name, field) in schema.properties.iter().flatten() {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        messages(field, &below, rules);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        messages(item, &format!("{path}[]"), rules);
    }
}

/// A doc comment on one line.
fn sentence(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that does not end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("a String takes every write");
}
