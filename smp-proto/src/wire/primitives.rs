//! Primitive encodings (WIRE-FACTS 1): a reader over a slice and a writer over a buffer.
