//! A model's parameters as GGUF (version 3, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), for tools that
//! look at tensors or plot them. Nothing reads a model back from it: a node takes signed artifacts alone.
//!
//! The pipeline is walked as data, so that a new estimator needs nothing here: what is a list of numbers becomes a
//! tensor, a list of such lists a matrix, a list of records one tensor a field, and a single number or word a key, all named
//! by the way that leads there (`members.1.Mlp.layers.0.weights`). Of a list whose elements are of several kinds, each kind is
//! a list of its own beside their places in it (`nodes.Leaf`, `nodes.Leaf.at`).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use vigia_model::artifact::Metadata;
use vigia_model::forest::{ForestSpec, Node};
use vigia_model::pipeline::PipelineSpec;

/// What tensors' places are multiples of.
const ALIGNMENT: usize = 32;
/// Longest name that GGML's readers take, without the zero behind it.
const MAX_NAME: usize = 63;
/// Words on the way to an estimator that say no more than the others.
const SILENT: [&str; 2] = ["estimator", "Vector"];

/// Element types, by GGML's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32 = 0,
    Q4_0 = 2,
    Q8_0 = 8,
    I32 = 26,
    I64 = 27,
}

/// Values of keys.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    U32(u32),
    Bool(bool),
    Text(String),
    I64(i64),
    F64(f64),
}

struct Tensor {
    /// The fastest first.
    shape: Vec<u64>,
    element: Element,
    data: Vec<u8>,
}

/// An isolation forest as columns over all its nodes, tree after tree in preorder: a split's left child is the next node.
#[derive(Serialize)]
struct Nodes {
    features: u16,
    samples: Vec<u32>,
    /// Nodes of each tree.
    nodes: Vec<u32>,
    /// -1 for leaves.
    feature: Vec<i32>,
    threshold: Vec<f32>,
    right: Vec<u32>,
    /// Rows in a leaf; 0 for splits.
    size: Vec<u32>,
}

impl From<ForestSpec> for Nodes {
    fn from(forest: ForestSpec) -> Self {
        let mut columns = Self {
            features: forest.features,
            samples: Vec::new(),
            nodes: Vec::new(),
            feature: Vec::new(),
            threshold: Vec::new(),
            right: Vec::new(),
            size: Vec::new(),
        };
        for tree in forest.trees {
            columns.samples.push(tree.samples);
            columns.nodes.push(tree.nodes.len() as u32);
            for node in tree.nodes {
                let (feature, threshold, right, size) = match node {
                    Node::Split {
                        feature,
                        threshold,
                        right,
                        ..
                    } => (i32::from(feature), threshold, u32::from(right), 0),
                    Node::Leaf { size } => (-1, 0.0, 0, size),
                };
                columns.feature.push(feature);
                columns.threshold.push(threshold);
                columns.right.push(right);
                columns.size.push(size);
            }
        }
        columns
    }
}

/// A model as a GGUF file.
///
/// # Errors
/// A name that is too long for GGML's readers, or a number that no tensor holds.
pub fn write(metadata: &Metadata, spec: PipelineSpec) -> Result<Vec<u8>, String> {
    let spec = serde_json::to_value(spec.map_forests(Nodes::from)).map_err(|error| error.to_string())?;
    let mut file = File::default();
    file.about(metadata);
    file.walk("", &spec, None)?;
    file.bytes()
}

#[derive(Default)]
struct File {
    keys: BTreeMap<String, Key>,
    tensors: BTreeMap<String, Tensor>,
}

impl File {
    fn about(&mut self, metadata: &Metadata) {
        let mut text = |key: &str, value: &str| {
            self.keys.insert(key.to_owned(), Key::Text(value.to_owned()));
        };
        text("general.architecture", "vigia");
        text("general.name", &metadata.name);
        text("general.author", &metadata.made_by);
        text("vigia.task", metadata.task.as_str());
        text("vigia.schema", &metadata.schema);
        text("vigia.schema_sha256", &metadata.schema_hash.to_string());
        text("vigia.created_at", &metadata.created_at);
        text("vigia.data_digest", &metadata.data_digest);
        text("vigia.seed", &metadata.seed.to_string());
        text("vigia.samples", &metadata.samples.to_string());
        for (name, value) in &metadata.hyperparameters {
            text(&format!("vigia.hyperparameter.{name}"), value);
        }
        for (name, value) in &metadata.metrics {
            self.keys.insert(format!("vigia.metric.{name}"), Key::F64(*value));
        }
        self.keys
            .insert("general.alignment".to_owned(), Key::U32(ALIGNMENT as u32));
    }

    /// Adds what is at `path`. `blocks` says how weights below it are stored, where they are blocks.
    fn walk(&mut self, path: &str, value: &Value, blocks: Option<Element>) -> Result<(), String> {
        match value {
            Value::Null => {}
            Value::Bool(value) => self.key(path, Key::Bool(*value)),
            Value::String(value) => self.key(path, Key::Text(value.clone())),
            Value::Number(number) => {
                let value = match number.as_i64() {
                    Some(whole) => Key::I64(whole),
                    None => Key::F64(number.as_f64().ok_or("a number that is none")?),
                };
                self.key(path, value);
            }
            Value::Array(list) => self.list(path, list, None, blocks)?,
            Value::Object(fields) => self.record(path, fields, blocks)?,
        }
        Ok(())
    }

    fn record(
        &mut self,
        path: &str,
        fields: &Map<String, Value>,
        blocks: Option<Element>,
    ) -> Result<(), String> {
        let blocks = match fields.get("precision").and_then(Value::as_str) {
            Some("Q8_0") => Some(Element::Q8_0),
            Some("Q4_0") => Some(Element::Q4_0),
            _ => blocks,
        };
        let length = |name: &str| fields.get(name).and_then(Value::as_array).map(Vec::len);
        for (name, value) in fields {
            let path = match (path, name.as_str()) {
                (path, name) if SILENT.contains(&name) => path.to_owned(),
                ("", name) => name.to_owned(),
                (path, name) => format!("{path}.{name}"),
            };
            match value {
                // A table and a layer are matrices; what they are wide stands beside them.
                Value::Array(list) if name == "values" || name == "weights" => {
                    let width = fields.get("width").and_then(Value::as_u64);
                    let width = width.or_else(|| length("bias").map(|n| n as u64));
                    self.list(&path, list, width, blocks)?;
                }
                value => self.walk(&path, value, blocks)?,
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        path: &str,
        list: &[Value],
        width: Option<u64>,
        blocks: Option<Element>,
    ) -> Result<(), String> {
        if list.is_empty() {
            return Ok(());
        }
        if list.iter().all(Value::is_number) {
            let tensor = match blocks.filter(|_| path.ends_with(".weights")) {
                Some(element) => stored(list, element)?,
                None => plain(list, width)?,
            };
            self.tensors.insert(path.to_owned(), tensor);
            return Ok(());
        }
        if let Some((flat, width)) = matrix(list) {
            self.tensors.insert(path.to_owned(), plain(&flat, Some(width))?);
            return Ok(());
        }
        if let Some(kinds) = kinds(list) {
            for (name, (places, values)) in kinds {
                let path = format!("{path}.{name}");
                self.list(&format!("{path}.at"), &places, None, None)?;
                self.list(&path, &values, None, None)?;
            }
            return Ok(());
        }
        if let Some(columns) = columns(list) {
            for (name, column) in columns {
                self.list(&format!("{path}.{name}"), &column, None, None)?;
            }
            return Ok(());
        }
        for (index, value) in list.iter().enumerate() {
            self.walk(&format!("{path}.{index}"), value, blocks)?;
        }
        Ok(())
    }

    fn key(&mut self, path: &str, value: Key) {
        self.keys.insert(format!("vigia.{path}"), value);
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::from(*b"GGUF");
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (name, key) in &self.keys {
            push_text(&mut out, name);
            key.push(&mut out);
        }
        let mut offset = 0;
        for (name, tensor) in &self.tensors {
            if name.len() > MAX_NAME {
                return Err(format!("{name} is too long for the name of a tensor"));
            }
            push_text(&mut out, name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend((tensor.element as u32).to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor.data.len().next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        for tensor in self.tensors.values() {
            out.extend(&tensor.data);
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        Ok(out)
    }
}

impl Key {
    /// Its type's number, and its value.
    fn push(&self, out: &mut Vec<u8>) {
        let kind: u32 = match self {
            Self::U32(_) => 4,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        };
        out.extend(kind.to_le_bytes());
        match self {
            Self::U32(value) => out.extend(value.to_le_bytes()),
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Text(value) => push_text(out, value),
            Self::I64(value) => out.extend(value.to_le_bytes()),
            Self::F64(value) => out.extend(value.to_le_bytes()),
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Lists of as many numbers each as one list, and how many those are.
fn matrix(list: &[Value]) -> Option<(Vec<Value>, u64)> {
    let width = list.first()?.as_array()?.len();
    let rows: Vec<&Vec<Value>> = list
        .iter()
        .map(|row| row.as_array().filter(|row| row.len() == width))
        .collect::<Option<_>>()?;
    let is_of_numbers = rows.iter().all(|row| row.iter().all(Value::is_number));
    (width > 0 && is_of_numbers).then(|| (rows.into_iter().flatten().cloned().collect(), width as u64))
}

/// For each name that a list's elements bear, the places of those and what they hold.
type Kinds<'a> = BTreeMap<&'a str, (Vec<Value>, Vec<Value>)>;

/// Elements that are a name and what it holds each, as kinds of data are written.
fn kinds(list: &[Value]) -> Option<Kinds<'_>> {
    let mut kinds = Kinds::new();
    for (place, element) in list.iter().enumerate() {
        let element = element.as_object().filter(|fields| fields.len() == 1)?;
        let (name, value) = element.iter().next()?;
        if value.is_number() {
            return None;
        }
        let (places, values) = kinds.entry(name).or_default();
        places.push(place.into());
        values.push(value.clone());
    }
    Some(kinds)
}

/// Records of single numbers as a list for each of their fields.
fn columns(list: &[Value]) -> Option<BTreeMap<&str, Vec<Value>>> {
    let mut columns: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for record in list {
        for (name, value) in record.as_object()? {
            value.as_f64()?;
            columns.entry(name).or_default().push(value.clone());
        }
    }
    columns
        .values()
        .all(|column| column.len() == list.len())
        .then_some(columns)
}

/// Numbers as whole ones where all are, else in single precision, which is what models compute in.
fn plain(list: &[Value], width: Option<u64>) -> Result<Tensor, String> {
    let whole: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
    let (element, data) = match whole {
        Some(whole) => {
            let small: Result<Vec<i32>, _> = whole.iter().map(|&n| i32::try_from(n)).collect();
            match small {
                Ok(small) => (Element::I32, small.iter().flat_map(|n| n.to_le_bytes()).collect()),
                Err(_) => (Element::I64, whole.iter().flat_map(|n| n.to_le_bytes()).collect()),
            }
        }
        None => {
            let value = |v: &Value| v.as_f64().map(|x| x as f32).ok_or("a number that is none");
            let values: Vec<f32> = list.iter().map(value).collect::<Result<_, _>>()?;
            (
                Element::F32,
                values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        }
    };
    let length = list.len() as u64;
    let shape = match width.filter(|&width| width > 0 && length.is_multiple_of(width)) {
        Some(width) => vec![width, length / width],
        None => vec![length],
    };
    Ok(Tensor { shape, element, data })
}

/// Blocks of 32 weights as they are; their rows need not be whole blocks, so that they are one row.
fn stored(list: &[Value], element: Element) -> Result<Tensor, String> {
    use vigia_model::estimators::quantized::{BLOCK, Precision};
    let byte = |value: &Value| value.as_u64().and_then(|n| u8::try_from(n).ok());
    let data: Vec<u8> = list.iter().map(byte).collect::<Option<_>>().ok_or("no bytes")?;
    let precision = if element == Element::Q4_0 {
        Precision::Q4_0
    } else {
        Precision::Q8_0
    };
    let weights = data.len() / precision.block() * BLOCK;
    Ok(Tensor {
        shape: vec![weights as u64],
        element,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_list_is_a_few_tensors_whatever_is_in_it() {
        let mut file = File::default();
        let model = json!({
            "seen": [[258, 7], [1_u64 << 40, 1], [772, 3]],
            "nodes": [
                {"Split": {"feature": 3, "threshold": 0.5, "left": 1, "right": 2}},
                {"Leaf": [0.25, 0.75]},
                {"Leaf": [1.0, 0.0]},
            ],
        });
        file.walk("m", &model, None).expect("tensors");
        let shapes: Vec<(&str, &[u64])> = file
            .tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), &tensor.shape[..]))
            .collect();
        let expected: [(&str, &[u64]); 8] = [
            ("m.nodes.Leaf", &[2, 2]),
            ("m.nodes.Leaf.at", &[2]),
            ("m.nodes.Split.at", &[1]),
            ("m.nodes.Split.feature", &[1]),
            ("m.nodes.Split.left", &[1]),
            ("m.nodes.Split.right", &[1]),
            ("m.nodes.Split.threshold", &[1]),
            ("m.seen", &[2, 3]),
        ];
        assert_eq!(shapes, expected);
        assert!(file.keys.is_empty(), "{:?}", file.keys);
        let places = [1i32, 2].map(i32::to_le_bytes).concat();
        assert_eq!(file.tensors["m.nodes.Leaf.at"].data, places);
        assert_eq!(file.tensors["m.seen"].element, Element::I64);
    }
}
