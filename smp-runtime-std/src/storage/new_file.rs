//! Database files that are whole from the moment they have their names.
//!
//! A file is made under another name, readable by its owner only, and gets its own when everything is in it; it never takes the
//! place of one that somebody else has made meanwhile. So wherever making it is interrupted, a file with its own name is complete.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

/// Makes `file`, unless somebody else does at the same moment: then theirs is it. `fill` gets the name to write to.
pub(crate) fn make<E>(
    file: &Path,
    failed: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let folder = folder(file);
    let new = tempfile::Builder::new().prefix(&prefix(file)).tempfile_in(folder).map_err(&failed)?;
    let new = new.into_temp_path();
    fill(&new)?;
    match new.persist_noclobber(file) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error.error)),
        _ => {}
    }
    if cfg!(unix) {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Removes what attempts have left behind that were interrupted. To be called when `file` is there and open: whoever makes
/// another one at this moment would not keep it.
pub(crate) fn remove_unfinished(file: &Path) -> io::Result<()> {
    let prefix = prefix(file);
    for entry in fs::read_dir(folder(file))? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn prefix(file: &Path) -> OsString {
    let mut prefix = file.file_name().unwrap_or_default().to_owned();
    prefix.push(".new");
    prefix
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn whoever_is_first_has_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.redb");
        let fill = |text: &'static str| {
            let file = &file;
            move |new: &Path| {
                if text == "late" {
                    fs::write(file, "early")?;
                }
                fs::write(new, text)
            }
        };
        make(&file, |error| error, fill("late")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "early");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::remove_file(&file).unwrap();
        make(&file, |error| error, fill("alone")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "alone");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_was_interrupted_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.redb");
        for name in ["a.redb", "a.redb.new7", "a.redb.newXyZ", "b.redb.new7", "a.redb.old"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_unfinished(&file).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.redb", "a.redb.old", "b.redb.new7"]);
        let failed = make(&file, |error| error, |_| Err(io::Error::other("full"))).unwrap_err();
        assert_eq!(failed.to_string(), "full");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
