//! Durable bytes, and an ordered list of what was written but not flushed.
//!
//! One [`Storage`] is everything of a device that outlives a power cut: raw devices ([`Medium`]) and one file system with
//! the rules of POSIX: a file's content is durable after `fsync`, its name after the directory's `fsync`, a rename is
//! atomic. Reads see everything that was written; a power cut ([`crate::testing::crash`]) keeps the durable part and what
//! it likes of the rest. A clone shares its bytes with the original and costs next to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::medium::{Data, Medium, hash_bytes, mix};

/// Number of a file, whatever its name.
pub type Inode = u32;

/// In which order names reach the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Names {
    /// As a journal does it (ext4): in order, and an `fsync` of any file takes all earlier changes of names along.
    Ordered,
    /// As POSIX allows it: any subset, until the directory is flushed.
    AnyOrder,
}

/// The content of one file.
#[derive(Debug)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    hash: u64,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Arc<Content> {
        let hash = hash_bytes(&bytes);
        Arc::new(Content { bytes, hash })
    }
}

/// Something that was done and is not durable yet.
#[derive(Debug, Clone)]
pub enum Pending {
    /// Bytes for a device.
    Write {
        /// Number of the device.
        medium: usize,
        /// Where.
        offset: u64,
        /// What.
        data: Arc<Data>,
    },
    /// A file holds this now.
    Fill {
        /// Which.
        inode: Inode,
        /// What it holds in all.
        content: Arc<Content>,
    },
    /// A name for a new file.
    Link {
        /// Which.
        inode: Inode,
        /// Its name.
        name: String,
    },
    /// A file got another name.
    Rename {
        /// Which.
        inode: Inode,
        /// Its old name.
        from: String,
        /// Its new name, taken from whatever had it.
        to: String,
    },
    /// A name is gone.
    Unlink {
        /// Which file had it.
        inode: Inode,
        /// The name.
        name: String,
    },
}

impl Pending {
    /// Whether it is about names.
    pub fn is_name(&self) -> bool {
        matches!(self, Pending::Link { .. } | Pending::Rename { .. } | Pending::Unlink { .. })
    }

    /// How many bytes it would write; 0 when it cannot be torn.
    pub fn length(&self) -> usize {
        match self {
            Pending::Write { data, .. } => data.bytes().len(),
            Pending::Fill { content, .. } => content.bytes.len(),
            Pending::Link { .. } | Pending::Rename { .. } | Pending::Unlink { .. } => 0,
        }
    }

    /// Tells it from others.
    pub fn hash(&self) -> u64 {
        let name =
            |kind, inode: &Inode, name: &str| mix(mix(kind, u64::from(*inode)), hash_bytes(name.as_bytes()));
        match self {
            Pending::Write { medium, offset, data } => mix(mix(1 + *medium as u64, *offset), data.hash()),
            Pending::Fill { inode, content } => mix(mix(100, u64::from(*inode)), content.hash),
            Pending::Link { inode, name: to } => name(101, inode, to),
            Pending::Rename { inode, from, to } => mix(name(102, inode, from), hash_bytes(to.as_bytes())),
            Pending::Unlink { inode, name: from } => name(103, inode, from),
        }
    }
}

/// One consistent picture of devices and files.
#[derive(Debug, Clone)]
pub struct View {
    media: Vec<Medium>,
    files: Arc<BTreeMap<Inode, Arc<Content>>>,
    names: Arc<BTreeMap<String, Inode>>,
}

impl View {
    /// A device.
    pub fn medium(&self, number: usize) -> &Medium {
        &self.media[number]
    }

    pub(super) fn medium_mut(&mut self, number: usize) -> &mut Medium {
        &mut self.media[number]
    }

    /// The file of a name.
    pub fn inode(&self, name: &str) -> Option<Inode> {
        self.names.get(name).copied()
    }

    /// What a file holds; one that was never written is empty.
    pub fn content(&self, inode: Inode) -> Option<Arc<Content>> {
        self.files.get(&inode).cloned()
    }

    /// What the file of a name holds.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        let inode = self.inode(name)?;
        Some(self.content(inode).map(|content| content.bytes.clone()).unwrap_or_default())
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    pub(super) fn fill(&mut self, inode: Inode, content: Arc<Content>) {
        Arc::make_mut(&mut self.files).insert(inode, content);
    }

    /// Does all of a pending act.
    pub(super) fn apply(&mut self, act: &Pending) {
        match act {
            Pending::Write { medium, offset, data } => {
                self.media[*medium].write(*offset, data, 0..data.bytes().len());
            }
            Pending::Fill { inode, content } => self.fill(*inode, content.clone()),
            Pending::Link { inode, name } => {
                Arc::make_mut(&mut self.names).insert(name.clone(), *inode);
            }
            Pending::Rename { inode, from, to } => {
                let names = Arc::make_mut(&mut self.names);
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Pending::Unlink { inode, name } => {
                let names = Arc::make_mut(&mut self.names);
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
        }
    }

    /// Forgets files without a name.
    pub(super) fn collect(&mut self) {
        let named: Vec<Inode> = self.names.values().copied().collect();
        if self.files.keys().any(|inode| !named.contains(inode)) {
            Arc::make_mut(&mut self.files).retain(|inode, _| named.contains(inode));
        }
    }

    /// A hash of everything that can be read.
    pub fn hash(&self) -> u64 {
        self.hash_behind(0)
    }

    /// The same without the first so many devices.
    pub fn hash_behind(&self, devices: usize) -> u64 {
        let hash = self.media.iter().skip(devices).fold(0, |hash, medium| mix(hash, medium.hash()));
        self.names.iter().fold(hash, |hash, (name, inode)| {
            let content = self.files.get(inode).map_or(0, |content| content.hash);
            mix(mix(hash, hash_bytes(name.as_bytes())), content)
        })
    }
}

/// Everything of a device that outlives a power cut.
#[derive(Debug, Clone)]
pub struct Storage {
    /// What is on the medium.
    pub durable: View,
    /// What reads see.
    pub live: View,
    /// What the one lacks of the other, in the order in which it was done.
    pub pending: Vec<Pending>,
    /// How names reach the medium.
    pub names: Names,
    next_inode: Inode,
}

impl Storage {
    /// Devices with these contents, and no file.
    pub fn new(media: Vec<Medium>, names: Names) -> Storage {
        let view = View { media, files: Arc::default(), names: Arc::default() };
        Storage { durable: view.clone(), live: view, pending: Vec::new(), names, next_inode: 1 }
    }

    /// Tells it from others: what is durable and what is pending.
    pub fn hash(&self) -> u64 {
        self.pending.iter().fold(self.durable.hash(), |hash, act| mix(hash, act.hash()))
    }

    /// Does something that is not durable.
    pub fn act(&mut self, act: Pending) {
        self.live.apply(&act);
        self.pending.push(act);
    }

    /// What creating or emptying a file does, and its number.
    pub fn creation(&mut self, name: &str) -> (Inode, Pending) {
        match self.live.inode(name) {
            Some(inode) => (inode, Pending::Fill { inode, content: Content::new(Vec::new()) }),
            None => {
                let inode = self.next_inode;
                self.next_inode += 1;
                (inode, Pending::Link { inode, name: name.to_owned() })
            }
        }
    }

    /// What appending to a file does.
    pub fn append(&self, inode: Inode, bytes: &[u8]) -> Pending {
        let mut all = self.live.content(inode).map(|content| content.bytes.clone()).unwrap_or_default();
        all.extend_from_slice(bytes);
        Pending::Fill { inode, content: Content::new(all) }
    }

    fn settle(&mut self, durable: impl Fn(&Pending) -> bool) {
        let pending = std::mem::take(&mut self.pending);
        for act in pending {
            if durable(&act) {
                self.durable.apply(&act);
            } else {
                self.pending.push(act);
            }
        }
    }

    /// Makes a device's writes durable.
    pub fn flush(&mut self, number: usize) {
        self.settle(|act| matches!(act, Pending::Write { medium, .. } if *medium == number));
    }

    /// A flush that failed: the kernel forgets the pages and takes them for clean. Reads still see them until they come
    /// from the medium again.
    pub fn lose(&mut self, number: usize) {
        self.pending.retain(|act| !matches!(act, Pending::Write { medium, .. } if *medium == number));
    }

    /// Makes reads of a device come from below the page cache: from the medium and from the device's own cache.
    pub fn drop_caches(&mut self, number: usize) {
        *self.live.medium_mut(number) = self.durable.medium(number).clone();
        let Storage { pending, live, .. } = self;
        for act in
            pending.iter().filter(|act| matches!(act, Pending::Write { medium, .. } if *medium == number))
        {
            live.apply(act);
        }
    }

    /// Makes a file's content durable.
    pub fn sync(&mut self, file: Inode) {
        let names = self.names;
        self.settle(|act| match act {
            Pending::Fill { inode, .. } => *inode == file,
            Pending::Write { .. } => false,
            Pending::Link { .. } | Pending::Rename { .. } | Pending::Unlink { .. } => names == Names::Ordered,
        });
    }

    /// Makes names durable.
    pub fn sync_directory(&mut self) {
        self.settle(Pending::is_name);
    }

    /// What a clean shutdown does.
    pub fn sync_all(&mut self) {
        self.settle(|_| true);
        self.durable.collect();
        self.live = self.durable.clone();
    }

    /// Makes a device blank, as a worn-out flash or a careless tool does.
    pub fn erase(&mut self, number: usize) {
        let blank = Medium::new(&vec![0xff; self.durable.medium(number).size() as usize]);
        *self.durable.medium_mut(number) = blank.clone();
        *self.live.medium_mut(number) = blank;
        self.pending.retain(|act| !matches!(act, Pending::Write { medium, .. } if *medium == number));
    }

    /// Makes a range of a device blank at once.
    pub fn erase_part(&mut self, number: usize, offset: u64, length: usize) {
        let blank = Data::new(vec![0xff; length]);
        self.durable.medium_mut(number).write(offset, &blank, 0..length);
        self.live.medium_mut(number).write(offset, &blank, 0..length);
    }

    /// The power comes back: nothing is pending.
    pub(super) fn after_cut(&self, mut durable: View) -> Storage {
        durable.collect();
        Storage {
            live: durable.clone(),
            durable,
            pending: Vec::new(),
            names: self.names,
            next_inode: self.next_inode,
        }
    }
}
