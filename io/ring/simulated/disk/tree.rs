//! Names: a tree of directories, and which names the disk has.
//!
//! Nodes are named by their number and stay until a crash: nothing removes a name yet.

use std::collections::BTreeMap;

use super::content::Content;
use super::options::Survival;
use crate::io::ring::simulated::random::Chance;

/// `NAME_MAX` and `PATH_MAX`, the NUL not counted.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

pub(super) type NodeId = usize;

pub(super) const ROOT: NodeId = 0;

#[derive(Debug)]
pub(super) enum Kind {
    File(Content),
    Directory(BTreeMap<Vec<u8>, NodeId>),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Permissions, as in a mode.
    pub(super) permissions: u32,
    /// Nanoseconds after 1970.
    pub(super) created: u64,
    pub(super) modified: u64,
    pub(super) accessed: u64,
    /// The write that has the file to itself, by a number of its own.
    pub(super) writer: Option<u64>,
}

impl Node {
    pub(super) fn new(kind: Kind, permissions: u32, now: u64) -> Self {
        let (created, modified, accessed) = (now, now, now);
        Self { kind, permissions, created, modified, accessed, writer: None }
    }

    pub(super) fn content(&mut self) -> Option<&mut Content> {
        match &mut self.kind {
            Kind::File(content) => Some(content),
            Kind::Directory(_) => None,
        }
    }
}

/// A name that the disk may not have.
#[derive(Debug)]
struct NewName {
    directory: NodeId,
    name: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// In the order in which they were made.
    new_names: Vec<NewName>,
}

/// Where a path leads: to a node, or to the place of one in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Taken(NodeId),
    Free(NodeId, Vec<u8>),
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::new(Kind::Directory(BTreeMap::new()), 0o755, 0);
        Self { nodes: vec![root], new_names: Vec::new() }
    }

    pub(super) fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id]
    }

    pub(super) fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut()
    }

    /// Follows a path; a relative one from the root.
    pub(super) fn find(&self, path: &[u8]) -> Result<Place, i32> {
        if path.is_empty() {
            return Err(-libc::ENOENT);
        }
        if path.len() > PATH_MAX {
            return Err(-libc::ENAMETOOLONG);
        }
        let mut way = vec![ROOT];
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let here = way[way.len() - 1];
            let Kind::Directory(entries) = &self.nodes[here].kind else {
                return Err(-libc::ENOTDIR);
            };
            match name {
                b"." => {}
                b".." if way.len() == 1 => {}
                b".." => drop(way.pop()),
                _ if name.len() > NAME_MAX => return Err(-libc::ENAMETOOLONG),
                _ => match entries.get(name) {
                    Some(id) => way.push(*id),
                    None if names.peek().is_some() => return Err(-libc::ENOENT),
                    None => return Ok(Place::Free(here, name.to_vec())),
                },
            }
        }
        let last = way[way.len() - 1];
        match self.nodes[last].kind {
            Kind::File(_) if path.ends_with(b"/") => Err(-libc::ENOTDIR),
            _ => Ok(Place::Taken(last)),
        }
    }

    /// Gives a node a name. The disk gets to know it later.
    pub(super) fn add(&mut self, directory: NodeId, name: Vec<u8>, node: Node) -> NodeId {
        let (id, now) = (self.nodes.len(), node.created);
        self.nodes.push(node);
        self.nodes[directory].modified = now;
        let Kind::Directory(entries) = &mut self.nodes[directory].kind else {
            unreachable!("names are looked for in directories only")
        };
        entries.insert(name.clone(), id);
        self.new_names.push(NewName { directory, name });
        id
    }

    /// A sync of a node is over: which names the disk has now.
    pub(super) fn synced(&mut self, id: NodeId, survival: Survival) {
        match survival {
            Survival::Posix => self.new_names.retain(|new| new.directory != id),
            Survival::Ordered => self.new_names.clear(),
        }
    }

    /// All names reach the disk.
    pub(super) fn sync_names(&mut self) {
        self.new_names.clear();
    }

    /// The power goes, and some of the new names with it.
    pub(super) fn crash(&mut self, survival: Survival, chance: &mut Chance) {
        let kept = chance.below(self.new_names.len() + 1);
        for (index, NewName { directory, name }) in self.new_names.drain(..).enumerate() {
            let survives = match survival {
                Survival::Posix => chance.one_in(2),
                Survival::Ordered => index < kept,
            };
            if let (false, Kind::Directory(entries)) = (survives, &mut self.nodes[directory].kind) {
                entries.remove(&name);
            }
        }
        // What has no name any more takes no space.
        let mut named = vec![false; self.nodes.len()];
        named[ROOT] = true;
        for node in &self.nodes {
            if let Kind::Directory(entries) = &node.kind {
                entries.values().for_each(|id| named[*id] = true);
            }
        }
        for (node, named) in self.nodes.iter_mut().zip(named) {
            if let (false, Some(content)) = (named, node.content()) {
                *content = Content::default();
            }
        }
    }
}
