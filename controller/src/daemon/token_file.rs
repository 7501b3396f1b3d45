//! The file of the token that commands over TCP have to show.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::shell::{Env, Token, TokenError};

/// More than any token, with a line's end.
const FILE_BYTES_MAX: u64 = 1024;
/// Who may read it: its owner.
const MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;

/// Why a token cannot be used.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// The file cannot be read or written.
    #[error("the token {} cannot be read or created: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it.
    #[error("the token {} can be read by others: chmod 600 it, and replace it if they may have", path.display())]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// No token is in it.
    #[error("the token {} cannot be used: {source}; remove it to have a new one created", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        source: TokenError,
    },
}

/// Reads the token; creates it if it is not there and `create` says so. `Ok(None)`: it would have to be created.
pub(super) fn open(path: &Path, create: bool, env: &impl Env) -> Result<Option<Token>, TokenFileError> {
    let failed = |source| TokenFileError::File { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_new(path, env).map_err(failed)?;
            OpenOptions::new().read(true).open(path).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(failed)?.mode() & OTHERS != 0 {
        return Err(TokenFileError::Open { path: path.to_owned() });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let token = Token::new(text.trim());
    token.map(Some).map_err(|source| TokenFileError::Content { path: path.to_owned(), source })
}

/// 256 random bits. It is whole or not there.
fn create_new(path: &Path, env: &impl Env) -> io::Result<()> {
    let text: String = (0..4).map(|_| format!("{:016x}", env.entropy())).collect();
    let unfinished = path.with_extension("new");
    // One that was left behind may be anybody's.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&unfinished)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    super::sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::SystemEnv;
    use super::*;

    #[test]
    fn a_token_is_created_once_and_stays_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert_eq!(open(&path, false, &SystemEnv).unwrap(), None);
        let token = open(&path, true, &SystemEnv).unwrap();
        assert!(token.is_some());
        assert_eq!(open(&path, true, &SystemEnv).unwrap(), token, "it is not created anew");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 65);
        let other = open(&folder.path().join("other"), true, &SystemEnv).unwrap();
        assert_ne!(other, token);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = open(&path, true, &SystemEnv).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "secret\n").unwrap();
        let error = open(&path, true, &SystemEnv).unwrap_err().to_string();
        assert!(error.contains("16 to 256") && !error.contains("secret"), "{error}");
    }
}
