//! An explanation field by field, for people and for programs: both are made from the same fields, so they say the same.

use serde_json::{Map, Value};

use crate::report::printable;

/// How wide labels are, so that values are below each other.
const LABEL_WIDTH: usize = 22;

/// What something is, and its fields.
#[derive(Debug)]
pub(crate) struct Explanation {
    /// What it is, for programs.
    pub(crate) kind: &'static str,
    /// What it is and what it is good for, for people.
    pub(crate) summary: &'static str,
    pub(crate) fields: Fields,
}

/// Fields in their order.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<Field>);

#[derive(Debug)]
struct Field {
    /// For programs.
    name: &'static str,
    /// For people.
    label: &'static str,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A value for programs, and the same for people.
    Value(Value, String),
    Group(Fields),
    /// Several of a kind.
    List(Vec<Fields>),
}

impl Fields {
    /// A value that people and programs read alike.
    pub(crate) fn text(self, name: &'static str, label: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.value(name, label, value.clone(), value)
    }

    /// A value for programs, and the same in words.
    pub(crate) fn value(
        mut self,
        name: &'static str,
        label: &'static str,
        value: impl Into<Value>,
        words: impl Into<String>,
    ) -> Self {
        self.0.push(Field { name, label, content: Content::Value(value.into(), words.into()) });
        self
    }

    /// Fields that belong together.
    pub(crate) fn group(mut self, name: &'static str, label: &'static str, fields: Self) -> Self {
        self.0.push(Field { name, label, content: Content::Group(fields) });
        self
    }

    /// Several things of a kind.
    pub(crate) fn list(mut self, name: &'static str, label: &'static str, items: Vec<Self>) -> Self {
        self.0.push(Field { name, label, content: Content::List(items) });
        self
    }

    fn to_json(&self) -> Map<String, Value> {
        let field = |field: &Field| {
            let value = match &field.content {
                Content::Value(value, _) => value.clone(),
                Content::Group(fields) => Value::Object(fields.to_json()),
                Content::List(items) => {
                    items.iter().map(|fields| Value::Object(fields.to_json())).collect::<Vec<_>>().into()
                }
            };
            (field.name.to_owned(), value)
        };
        self.0.iter().map(field).collect()
    }

    fn write(&self, depth: usize, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        for Field { label, content, .. } in &self.0 {
            let width = LABEL_WIDTH.saturating_sub(indent.len());
            match content {
                Content::Value(_, words) => {
                    // What somebody else wrote stays on its line.
                    let words = printable(words).replace('\n', "\u{fffd}");
                    lines.push(format!("{indent}{label:width$}{words}"));
                }
                Content::Group(fields) => {
                    lines.push(format!("{indent}{label}"));
                    fields.write(depth + 1, lines);
                }
                Content::List(items) => {
                    for (number, fields) in (1..).zip(items) {
                        let number = if items.len() == 1 { String::new() } else { format!(" {number}") };
                        lines.push(format!("{indent}{label}{number}"));
                        fields.write(depth + 1, lines);
                    }
                }
            }
        }
    }
}

impl Explanation {
    /// The kind and the fields as one JSON object.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("kind".to_owned(), self.kind.into());
        object.extend(self.fields.to_json());
        Value::Object(object)
    }

    /// One line for what it is, and one for each field.
    pub(crate) fn to_text(&self) -> String {
        let mut lines = vec![self.summary.to_owned()];
        self.fields.write(1, &mut lines);
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn people_and_programs_read_the_same_fields() {
        let item = |host: &str| Fields::default().text("host", "host", host);
        let explanation = Explanation {
            kind: "thing",
            summary: "A thing.",
            fields: Fields::default()
                .value("port", "port", 5223, "5223, as nothing else is said")
                .group("relay", "relay", item("one"))
                .list("queues", "queue", vec![item("two"), item("thr\x1bee\nfour")]),
        };
        assert_eq!(
            explanation.to_json(),
            json!({
                "kind": "thing", "port": 5223, "relay": { "host": "one" },
                "queues": [{ "host": "two" }, { "host": "thr\u{1b}ee\nfour" }],
            })
        );
        let text = explanation.to_text();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["A", "thing."]);
        assert_eq!(lines[1][..2], ["port", "5223,"]);
        assert_eq!(
            lines[4..],
            [
                vec!["queue", "1"],
                vec!["host", "two"],
                vec!["queue", "2"],
                vec!["host", "thr\u{fffd}ee\u{fffd}four"]
            ]
        );
    }
}
