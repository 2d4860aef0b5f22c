//! Which file a thread works on, for those who watch over it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    static FOLLOWED: RefCell<Option<CurrentFile>> = const { RefCell::new(None) };
}

/// The last file that a thread has begun to work on. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CurrentFile(Arc<Mutex<PathBuf>>);

impl CurrentFile {
    /// From now on it is that of the calling thread.
    pub fn follow_this_thread(&self) {
        FOLLOWED.set(Some(self.clone()));
    }

    /// From now on, no file is noted of the calling thread.
    pub(super) fn follow_nothing() {
        FOLLOWED.set(None);
    }

    /// Its path; empty before the first one.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Notes that this thread is about to work on a file, which may take any time. Costs nothing if it is not followed.
pub fn note(path: &Path) {
    FOLLOWED.with_borrow(|followed| {
        if let Some(CurrentFile(current)) = followed {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            // Its memory is used again.
            current.as_mut_os_string().clear();
            current.push(path);
        }
    });
}
