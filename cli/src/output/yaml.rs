//! JSON as YAML 1.2 in blocks. Texts stay in quotation marks, as in JSON, which YAML reads: none is taken for something else.

use serde_json::Value;

/// A document.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                out.push_str(&format!("{indent}{name}:"));
                below(value, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                // the first line of an item stands behind its dash
                let inner = inner.strip_prefix(&"  ".repeat(depth + 1)).unwrap_or(&inner).to_owned();
                out.push_str(&format!("{indent}- {inner}"));
            }
        }
        plain => out.push_str(&format!("{indent}{plain}\n")),
    }
}

fn below(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, depth, out);
    } else {
        out.push_str(&format!(" {value}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_blocks() {
        let value = serde_json::json!([{"a": 1, "b": {"c": [true, null], "d": {}}}, {"a": "no: \"x\""}, []]);
        let expected = "- a: 1\n  b:\n    c:\n      - true\n      - null\n    d: {}\n- a: \"no: \\\"x\\\"\"\n- []\n";
        assert_eq!(text(&value), expected);
        assert_eq!(text(&serde_json::json!("yes")), "\"yes\"\n");
    }
}
