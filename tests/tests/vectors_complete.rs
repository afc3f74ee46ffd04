//! No line of the vectors is forgotten: a test runs every kind, or a reason stands here.

use std::collections::BTreeSet;
use std::path::Path;

use smp_tests::vectors;

/// Kinds that no test runs: file, kind, why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    (
        "crypto.jsonl",
        "aes256-gcm-nopad",
        "12-byte IVs are for the frames of calls, which are not part of SMP; the ratchet's 16-byte IVs are run",
    ),
    ("hello.jsonl", "certificates", "not a test: certificates that the other lines name"),
];

/// The sources of the tests that run vectors, each without white space.
fn sources() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of the tests") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("vectors_") && name.ends_with(".rs") && name != "vectors_complete.rs" {
            let source = std::fs::read_to_string(&path).expect("a source");
            sources.push(source.split_whitespace().collect());
        }
    }
    sources
}

/// Whether a source has `run("crypto.jsonl", "pad", …)`, or is about one file and has `run("pad", …)`.
fn is_run(source: &str, file: &str, kind: &str) -> bool {
    source.contains(&format!("\"{file}\",\"{kind}\","))
        || source.contains(&format!("FILE:&str=\"{file}\"")) && source.contains(&format!("run(\"{kind}\","))
}

#[test]
fn every_kind_of_line_is_run_or_has_a_reason() {
    let sources = sources();
    let files = [
        "commands.jsonl",
        "crypto.jsonl",
        "hello.jsonl",
        "links.jsonl",
        "messages.jsonl",
        "proxy.jsonl",
        "ratchet.jsonl",
        "responses.jsonl",
        "transmissions.jsonl",
    ];
    let mut forgotten = Vec::new();
    for file in files {
        let kinds: BTreeSet<_> = vectors::read(file).into_iter().map(|vector| vector.kind).collect();
        for kind in kinds {
            let run = sources.iter().any(|source| is_run(source, file, &kind));
            let reason = NOT_RUN.iter().any(|(other, name, _)| *other == file && *name == kind);
            if run == reason {
                forgotten.push(format!(
                    "{file}: {kind} ({})",
                    if run { "has a reason, and is run" } else { "not run" }
                ));
            }
        }
    }
    assert!(forgotten.is_empty(), "{forgotten:#?}");
}
