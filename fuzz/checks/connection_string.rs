//! Connection strings.

use hookwire_proto::connection_string::ConnectionString;

/// Reads `input`. What is understood says the same when it is written and read again; what is not is told without its values.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match ConnectionString::parse(text) {
        Ok(parsed) => {
            let line = parsed.reveal();
            let again = ConnectionString::parse(&line).expect("what is written can be read");
            assert_eq!(again.reveal(), line);
            assert_eq!(again.endpoint(), parsed.endpoint());
            assert!(matches!(parsed.endpoint().scheme(), "http" | "https"));
            assert!(!format!("{parsed:?}").contains(parsed.access_key().reveal()));
        }
        Err(error) => {
            for value in text.split(';').filter_map(|part| Some(part.split_once('=')?.1)) {
                // Short values may be words of the sentence.
                if 30 <= value.len() {
                    assert!(!error.to_string().contains(value), "{error} shows a value");
                }
            }
        }
    }
}
