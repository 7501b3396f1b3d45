//! The secret that who sends commands over TCP has to know.

use std::fmt;

use subtle::ConstantTimeEq;
use thiserror::Error;

/// The shortest token: what can be guessed is none.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 256;

/// A secret: 16 to 256 visible ASCII characters. It is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters, and no spaces")]
pub struct TokenError;

impl Token {
    /// From text without spaces around it.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let fits = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len());
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits && visible { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }

    /// Whether that is it. How long this takes tells nothing of the token but its length.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(text).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_stays_secret() {
        for text in ["", "short", "sixteen letters!\n", "with spaces in it, and long", &"x".repeat(257)] {
            assert_eq!(Token::new(text), Err(TokenError), "{text:?}");
        }
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcde", b"0123456789abcdeg", b"0123456789abcdef0"] {
            assert!(!token.is(other));
        }
        assert!(!format!("{token:?}").contains("0123"));
    }
}
