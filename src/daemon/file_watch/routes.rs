//! The routes to the watched files: every directory and every symbolic link on the way.
//!
//! A route is walked component by component, and each directory is watched before the next name in it is looked at. So
//! what changes after the look is an event, and what changed before it is seen by the look.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use inotify::{EventMask, EventOwned, WatchDescriptor, WatchMask, Watches};

use crate::files::{link_target, note};

/// The watched files and the routes to them.
pub(super) struct Routes {
    watches: Watches,
    files: Vec<WatchedFile>,
    /// For each watched inode the steps through it, each with the files that it leads to.
    by_descriptor: BTreeMap<WatchDescriptor, BTreeMap<Name, BTreeSet<usize>>>,
    /// A failure to watch is logged once.
    has_warned: bool,
}

struct WatchedFile {
    path: PathBuf,
    route: Vec<Step>,
}

/// A name in a directory; `None` for the watched inode itself.
type Name = Option<OsString>;

/// One step of a route.
type Step = (WatchDescriptor, Name);

/// The events of a directory that change which inode a name stands for, or that move the directory itself.
const NAME_EVENTS: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::MOVED_FROM)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

/// Routes end here, as the kernel's do.
const MAX_LINKS: usize = 40;

impl Routes {
    pub(super) fn new(watches: Watches) -> Self {
        Self { watches, files: Vec::new(), by_descriptor: BTreeMap::new(), has_warned: false }
    }

    /// Watches these files instead of the previous ones.
    pub(super) fn watch(&mut self, files: &[PathBuf]) -> io::Result<()> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        self.files = files.iter().map(|path| WatchedFile { path: absolute(path), route: Vec::new() }).collect();
        let former = std::mem::take(&mut self.by_descriptor);
        let mut result = Ok(());
        for index in 0..self.files.len() {
            result = result.and(self.follow(index));
        }
        // A descriptor that is still in use has kept its number.
        for descriptor in former.into_keys() {
            if !self.by_descriptor.contains_key(&descriptor) {
                self.unwatch(descriptor);
            }
        }
        self.has_warned = result.is_err();
        result
    }

    /// Walks all routes again.
    pub(super) fn follow_all(&mut self) {
        self.follow_again(0..self.files.len());
    }

    /// Whether an event is about a file or its route. If not, there is nothing to [`take`](Self::take).
    pub(super) fn concerns(&self, event: &EventOwned) -> bool {
        event.mask.contains(EventMask::IGNORED) || !self.affected(event).is_empty()
    }

    /// Returns whether an event concerns a file, and walks the routes again that it may have changed.
    pub(super) fn take(&mut self, event: &EventOwned) -> bool {
        let affected = self.affected(event);
        if event.mask.contains(EventMask::IGNORED) {
            self.by_descriptor.remove(&event.wd);
        }
        let is_concerned = !affected.is_empty();
        if !is_write(event) {
            self.follow_again(affected);
        }
        is_concerned
    }

    fn affected(&self, event: &EventOwned) -> Vec<usize> {
        let Some(steps) = self.by_descriptor.get(&event.wd) else { return Vec::new() };
        if is_write(event) || event.name.is_some() {
            steps.get(&event.name).into_iter().flatten().copied().collect()
        } else {
            // The inode itself has moved or is gone.
            steps.values().flatten().copied().collect()
        }
    }

    fn follow_again(&mut self, files: impl IntoIterator<Item = usize>) {
        for index in files {
            let Err(error) = self.follow(index) else { continue };
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!(%error, "cannot watch files for changes: send HUP after changing them");
            }
        }
    }

    /// Walks the route to a file, watches each step of it, and leaves the steps of its former route.
    fn follow(&mut self, index: usize) -> io::Result<()> {
        note(&self.files[index].path);
        let mut route = Vec::new();
        let walked = walk(&mut self.watches, &self.files[index].path, &mut route);
        for (descriptor, name) in &route {
            let names = self.by_descriptor.entry(descriptor.clone()).or_default();
            names.entry(name.clone()).or_default().insert(index);
        }
        let former = std::mem::replace(&mut self.files[index].route, route);
        for step in former {
            if !self.files[index].route.contains(&step) {
                self.leave(index, step);
            }
        }
        walked
    }

    fn leave(&mut self, index: usize, (descriptor, name): Step) {
        let Some(names) = self.by_descriptor.get_mut(&descriptor) else { return };
        if let Some(files) = names.get_mut(&name) {
            files.remove(&index);
            if files.is_empty() {
                names.remove(&name);
            }
        }
        if names.is_empty() {
            self.by_descriptor.remove(&descriptor);
            self.unwatch(descriptor);
        }
    }

    fn unwatch(&mut self, descriptor: WatchDescriptor) {
        // The kernel has removed it itself if its inode is gone.
        let _gone = self.watches.remove(descriptor);
    }
}

fn is_write(event: &EventOwned) -> bool {
    event.mask.contains(EventMask::CLOSE_WRITE)
}

/// Walks from the root to a file, as far as there is something, and watches each step.
fn walk(watches: &mut Watches, path: &Path, route: &mut Vec<Step>) -> io::Result<()> {
    // Without symbolic links: `..` is its parent.
    let mut directory = PathBuf::from("/");
    let mut rest = reversed(path);
    let mut links = 0;
    while let Some(component) = rest.pop() {
        let name = match component {
            Part::Root => {
                directory = PathBuf::from("/");
                continue;
            }
            Part::Up => {
                directory.pop();
                continue;
            }
            Part::Name(name) => name,
        };
        let is_last = rest.is_empty();
        let mask = if is_last { NAME_EVENTS.union(WatchMask::CLOSE_WRITE) } else { NAME_EVENTS };
        match add(watches, &directory, mask)? {
            Added::Watched(descriptor) => route.push((descriptor, Some(name.clone()))),
            Added::Unreadable => {}
            Added::Missing => return Ok(()),
        }
        let path = directory.join(&name);
        match link_target(&path) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                rest.extend(reversed(&target));
            }
            // Not a link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                if is_last && let Added::Watched(descriptor) = add(watches, &path, WatchMask::CLOSE_WRITE)? {
                    route.push((descriptor, None));
                }
                directory = path;
            }
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}

enum Part {
    Root,
    Up,
    Name(OsString),
}

/// The components of a path, last one first.
fn reversed(path: &Path) -> Vec<Part> {
    let parts = path.components().filter_map(|component| match component {
        Component::RootDir => Some(Part::Root),
        Component::ParentDir => Some(Part::Up),
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}

enum Added {
    Watched(WatchDescriptor),
    /// It may not be watched by this user; what is in it may.
    Unreadable,
    Missing,
}

/// Watches a directory or a file, in addition to what it is watched for already. Files are watched too, because a
/// change of a bind-mounted single file is no event of its directory.
fn add(watches: &mut Watches, path: &Path, mask: WatchMask) -> io::Result<Added> {
    match watches.add(path, mask.union(WatchMask::MASK_ADD).union(WatchMask::DONT_FOLLOW)) {
        Ok(descriptor) => Ok(Added::Watched(descriptor)),
        Err(error) => match error.kind() {
            io::ErrorKind::PermissionDenied => Ok(Added::Unreadable),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(Added::Missing),
            _ => Err(error),
        },
    }
}
