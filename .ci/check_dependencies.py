#!/usr/bin/env python3
"""Dependency and licence check: every crate of the lock file comes from crates.io or this workspace, and may be used
under a licence that fits MIT OR Apache-2.0. Reads `cargo metadata`; needs nothing beyond Python and cargo."""
import json
import re
import subprocess
import sys

ALLOWED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "Zlib",
    "Unicode-3.0", "Unicode-DFS-2016", "CC0-1.0", "Unlicense", "BSL-1.0", "MIT-0", "CDLA-Permissive-2.0", "OpenSSL",
}
# Copyleft of single files, which does not reach what links them; each crate is named, so that no other slips in.
ALLOWED_FOR = {"option-ext": "MPL-2.0"}


def satisfied(expression):
    """Evaluates an SPDX expression of AND, OR and parentheses over the allowed licences."""
    tokens = re.findall(r"\(|\)|[^()\s]+(?:\s+WITH\s+[^()\s]+)?", expression.replace("/", " OR "))
    words = [{"(": "(", ")": ")", "AND": "and", "OR": "or"}.get(t, str(t in ALLOWED)) for t in tokens]
    return bool(eval(" ".join(words), {"__builtins__": {}}))  # only True, False, and, or, parentheses


def main():
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--all-features"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    refused = []
    for package in metadata["packages"]:
        name = f'{package["name"]} {package["version"]}'
        source = package["source"]
        if source is not None and not source.startswith("registry+"):
            refused.append(f"{name}: comes from {source}, not from a package registry")
        if not package["license"]:
            refused.append(f"{name}: names no licence")
        elif not satisfied(package["license"]) and ALLOWED_FOR.get(package["name"]) != package["license"]:
            refused.append(f'{name}: licence {package["license"]} is not on the list')
    for line in refused:
        print(line, file=sys.stderr)
    print(f'{len(metadata["packages"])} crates checked, {len(refused)} refused')
    return 1 if refused else 0


sys.exit(main())
