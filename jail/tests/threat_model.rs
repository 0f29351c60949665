//! What SECURITY.md says of tests is so.

use std::fs;
use std::path::{Path, PathBuf};

/// What makes a file one of tests. Those of ways out of the jail have no harness; browsers' are in JavaScript.
const MARKS: [&str; 6] = ["#[test]", "#[tokio::test", "proptest!", "fuzz_target!", "yunju_prisoner::main", "test("];

fn tests(path: &Path) -> bool {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder that is there");
        return entries.flatten().any(|entry| tests(&entry.path()));
    }
    fs::read_to_string(path).is_ok_and(|text| MARKS.iter().any(|mark| text.contains(mark)))
}

/// The rows of the table whose last column has this title.
fn rows<'t>(text: &'t str, title: &'t str) -> impl Iterator<Item = Vec<&'t str>> {
    let cells = |line: &'t str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let table = text.lines().skip_while(move |line| cells(line).last() != Some(&title)).skip(2);
    table.take_while(|line| line.starts_with('|')).map(cells)
}

#[test]
fn every_boundary_of_the_threat_model_is_guarded_by_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let mut boundaries = 0;
    for row in rows(&text, "guarded by") {
        let (boundary, guards) = (row[0], *row.last().expect("a row has cells"));
        // `name` of a fuzz target, or `path`; a folder may end with two stars.
        let named: Vec<PathBuf> = guards
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|name| {
                let path = if name.contains('/') {
                    name.trim_end_matches("**").into()
                } else {
                    format!("fuzz/fuzz_targets/{name}.rs")
                };
                root.join(path)
            })
            .collect();
        assert!(!named.is_empty(), "{boundary}: nothing guards it");
        for path in named {
            assert!(path.exists(), "{boundary}: {} is not there", path.display());
            assert!(tests(&path), "{boundary}: {} has no test", path.display());
        }
        boundaries += 1;
    }
    assert!(boundaries > 10, "{boundaries} boundaries were found in SECURITY.md");
}
