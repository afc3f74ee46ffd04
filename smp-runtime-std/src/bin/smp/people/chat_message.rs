//! What applications say to each other inside agent messages: the part of the SimpleX chat protocol that a conversation of
//! two people needs (simplex-chat, docs/protocol/simplex-chat.md).
//!
//! A message is JSON with `event` and `params`. This program sends `x.info` and `x.contact` (who I am), and `x.msg.new`
//! with a text; what it does not know it names, and never fails over.

use serde_json::{Value, json};
use smp_proto::entropy::Entropy;
use smp_proto::wire::base64url;

use crate::report::printable;

/// The version of the chat protocol that what is sent here needs.
const VERSION: &str = "1";

/// The longest name that is taken from somebody else, in characters.
const LONGEST_NAME: usize = 40;

/// What came in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A text.
    Text(String),
    /// Who the other side says to be.
    Profile(Option<String>),
    /// Something else, by its name.
    Other(String),
    /// Nothing of this protocol.
    Raw(Vec<u8>),
}

fn profile(name: &str) -> Value {
    json!({ "displayName": name, "fullName": "" })
}

/// Who I am, to somebody who connects or to whom I connect.
pub(crate) fn introduction(name: &str) -> Vec<u8> {
    json!({ "v": VERSION, "event": "x.info", "params": { "profile": profile(name) } })
        .to_string()
        .into_bytes()
}

/// Who I am, to the owner of a contact address.
pub(crate) fn request(name: &str) -> Vec<u8> {
    json!({ "v": VERSION, "event": "x.contact", "params": { "profile": profile(name) } })
        .to_string()
        .into_bytes()
}

/// Who I am, for whoever has the short link.
pub(crate) fn link_data(name: &str) -> Vec<u8> {
    json!({ "profile": profile(name), "business": false }).to_string().into_bytes()
}

/// A text.
pub(crate) fn text(text: &str, entropy: &mut impl Entropy) -> Vec<u8> {
    let mut id = [0; 12];
    entropy.fill_public(&mut id);
    json!({
        "v": VERSION,
        "msgId": base64url::encode_unpadded(&id),
        "event": "x.msg.new",
        "params": { "content": { "type": "text", "text": text } },
    })
    .to_string()
    .into_bytes()
}

/// Understands what came; several messages can come as one.
pub(crate) fn understand(body: &[u8]) -> Vec<Content> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(messages)) => messages.iter().map(one).collect(),
        Ok(message @ Value::Object(_)) => vec![one(&message)],
        _ => vec![Content::Raw(body.to_vec())],
    }
}

fn one(message: &Value) -> Content {
    let params = &message["params"];
    match message["event"].as_str() {
        Some("x.msg.new") => match params["content"]["text"].as_str() {
            Some(text) if !text.is_empty() => Content::Text(text.to_owned()),
            _ => Content::Other(params["content"]["type"].as_str().unwrap_or("x.msg.new").to_owned()),
        },
        Some("x.info" | "x.contact") => Content::Profile(display_name(&params["profile"])),
        Some(event) => Content::Other(event.to_owned()),
        None => Content::Other("a message without a kind".to_owned()),
    }
}

/// The name in a profile, as far as it can be shown.
fn display_name(profile: &Value) -> Option<String> {
    let name = printable(profile["displayName"].as_str()?);
    let name: String =
        name.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST_NAME).collect();
    (!name.is_empty()).then_some(name)
}

/// The name of who made a short link, if the data behind it tell.
pub(crate) fn name_in_link_data(data: &[u8]) -> Option<String> {
    let data: Value = serde_json::from_slice(data).ok()?;
    display_name(&data["profile"])
}

/// The name of who says this.
pub(crate) fn name_in(information: &[u8]) -> Option<String> {
    understand(information).into_iter().find_map(|content| match content {
        Content::Profile(name) => name,
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use smp_proto::entropy::SeededEntropy;

    #[test]
    fn what_is_said_is_understood() {
        let mut entropy = SeededEntropy::new([1; 32]);
        assert_eq!(
            understand(&text("hi \"you\"\n", &mut entropy)),
            [Content::Text("hi \"you\"\n".to_owned())]
        );
        assert_eq!(name_in(&introduction("alice")).unwrap(), "alice");
        assert_eq!(name_in(&request("alice")).unwrap(), "alice");
        assert_eq!(name_in_link_data(&link_data("alice")).unwrap(), "alice");
    }

    #[test]
    fn what_is_not_known_is_named() {
        let file = br#"{"v":"1-14","msgId":"AAAA","event":"x.msg.new","params":{"content":{"type":"file"}}}"#;
        assert_eq!(understand(file), [Content::Other("file".to_owned())]);
        assert_eq!(understand(br#"{"event":"x.grp.inv"}"#), [Content::Other("x.grp.inv".to_owned())]);
        assert_eq!(understand(b"{}"), [Content::Other("a message without a kind".to_owned())]);
        assert_eq!(understand(b"hello"), [Content::Raw(b"hello".to_vec())]);
        assert_eq!(understand(b"\xff"), [Content::Raw(vec![255])]);
        let both = br#"[{"event":"x.info","params":{"profile":{"displayName":"b"}}},{"event":"x.msg.new","params":{"content":{"type":"text","text":"t"}}}]"#;
        assert_eq!(understand(both), [Content::Profile(Some("b".to_owned())), Content::Text("t".to_owned())]);
    }

    #[test]
    fn names_of_others_cannot_disturb() {
        let name = |text: &str| name_in(&introduction(text));
        assert_eq!(name(" a\n\u{1b}[2J  b "), Some("a \u{fffd}[2J b".to_owned()));
        assert_eq!(name(" \n"), None);
        assert_eq!(name(&"x".repeat(100)).unwrap().len(), 40);
    }
}
