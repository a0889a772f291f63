//! Slots on block devices and, for devices made of files, on regular files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::libc;

use super::ioctl;
use crate::aligned::{ALIGNMENT, Aligned};
use crate::failure::{Act, Code, Failure, from_slot};
use crate::ports::{DeviceId, Partition, SlotDevice, SlotDevices, SlotReader};

/// Direct reads that do not fit their memory are made in windows of this size, so that chunks of any length and offset cost few
/// system calls.
const WINDOW_BYTES: usize = 128 * 1024;
/// Smallest range for which zeroing by command is worth a system call of its own, and its alignment.
const ZERO_ALIGNMENT: u64 = 4096;
/// Zeros that are written at once where there is no command for them. Memory while it lasts, and not flash for ever: a constant would
/// stand in the program.
const ZEROS_BYTES: u64 = 64 * 1024;

/// The system's block devices and files.
#[derive(Debug, Default)]
pub struct SystemDevices;

impl SlotDevices for SystemDevices {
    fn identify(&self, path: &Path) -> io::Result<DeviceId> {
        let metadata = std::fs::metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_block_device() {
            return Ok(DeviceId::Block(metadata.rdev()));
        }
        if kind.is_file() {
            return Ok(DeviceId::File { device: metadata.dev(), inode: metadata.ino() });
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a block device nor a regular file"))
    }

    fn identify_stack(&self, id: DeviceId) -> Vec<DeviceId> {
        let mut stack = vec![id];
        let mut at = 0;
        while let Some(&next) = stack.get(at) {
            for below in below(next) {
                if !stack.contains(&below) {
                    stack.push(below);
                }
            }
            at += 1;
        }
        stack
    }

    fn partition(&self, id: DeviceId) -> Option<Partition> {
        let DeviceId::Block(number) = id else { return None };
        partition(&sysfs(number).canonicalize().ok()?)
    }

    fn open_target(&self, path: &Path) -> Result<Box<dyn SlotDevice>, Failure> {
        let place = path.display().to_string();
        let device = Device::open(path).map_err(|error| {
            let failure = from_slot(Act::Open, &place, &error);
            let holders = if failure.code == Code::SlotBusy { mounts(path) } else { String::new() };
            Failure::new(failure.code, format!("{}{holders}", failure.message))
        })?;
        Ok(Box::new(device))
    }

    fn open_source(&self, path: &Path) -> io::Result<(Box<dyn SlotReader>, u64)> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags | libc::O_CLOEXEC).open(path);
        // A mounted device is read past the cache too: what matters is not to fill the memory of a small device with it.
        let file = open(libc::O_DIRECT).or_else(|_| open(0))?;
        let metadata = file.metadata()?;
        let size = if metadata.file_type().is_block_device() { ioctl::size(&file)? } else { metadata.len() };
        Ok((Box::new(Reader { file: Arc::new(file), window: Window::default() }), size))
    }
}

/// What the kernel tells of a block device.
fn sysfs(number: u64) -> PathBuf {
    format!("/sys/dev/block/{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number)).into()
}

/// Linux shows so many sectors of an extended partition (block/partitions/msdos.c), and the second of them may be the first of the
/// logical partition behind it: that is a container, and nothing lies in it.
const EXTENDED_SECTORS: u64 = 2;

/// The partition that a directory of sysfs is about; those of the same disk lie beside it.
fn partition(here: &Path) -> Option<Partition> {
    let (start, sectors) = extent(here)?;
    let all = std::fs::read_dir(here.parent()?).ok()?.flatten().map(|entry| entry.path());
    let other = all.filter(|other| other != here).find(|other| {
        extent(other).is_some_and(|(first, count)| {
            count > EXTENDED_SECTORS && first < start + sectors && start < first + count
        })
    });
    let overlaps = other.and_then(|other| Some(other.file_name()?.to_string_lossy().into_owned()));
    Some(Partition { start, sectors, overlaps })
}

/// First sector and number of sectors of a partition, by its directory in sysfs.
fn extent(partition: &Path) -> Option<(u64, u64)> {
    let number =
        |name| std::fs::read_to_string(partition.join(name)).ok().and_then(|text| text.trim().parse().ok());
    number("partition")?;
    Some((number("start")?, number("size")?))
}

/// The devices directly below a block device: the slaves of a mapper device, the file behind a loop device.
fn below(id: DeviceId) -> Vec<DeviceId> {
    let DeviceId::Block(number) = id else { return Vec::new() };
    let sys = sysfs(number);
    let slaves = std::fs::read_dir(sys.join("slaves")).into_iter().flatten().flatten();
    let mut found: Vec<_> = slaves.filter_map(|slave| device_number(&slave.path().join("dev"))).collect();
    let backing = std::fs::read_to_string(sys.join("loop/backing_file")).unwrap_or_default();
    if !backing.is_empty() {
        found.extend(SystemDevices.identify(Path::new(backing.trim_end_matches('\n'))).ok());
    }
    found
}

fn device_number(path: &Path) -> Option<DeviceId> {
    let text = std::fs::read_to_string(path).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(DeviceId::Block(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?)))
}

/// Names the mount points of a device, for the message of a refusal.
fn mounts(path: &Path) -> String {
    let Ok(real) = path.canonicalize() else { return String::new() };
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let at = |line: &str| {
        let mut words = line.split(' ');
        (words.next() == real.to_str()).then(|| words.next().map(str::to_owned)).flatten()
    };
    let points: Vec<_> = table.lines().filter_map(at).collect();
    if points.is_empty() { String::new() } else { format!(" (mounted on {})", points.join(", ")) }
}

/// One open target.
struct Device {
    /// Holds the exclusive claim; goes through the page cache.
    file: File,
    /// The same device past the page cache; where that is not possible, through it.
    bypass: Arc<File>,
    /// Whether `bypass` really bypasses the cache.
    direct: bool,
    id: DeviceId,
    size: u64,
}

impl Device {
    fn open(path: &Path) -> io::Result<Self> {
        // O_EXCL on a block device: the kernel refuses when it is mounted or claimed by anybody (fault matrix, rule 5).
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL | libc::O_CLOEXEC)
            .open(path)?;
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        let (id, size) = if kind.is_block_device() {
            (DeviceId::Block(metadata.rdev()), ioctl::size(&file)?)
        } else if kind.is_file() {
            (DeviceId::File { device: metadata.dev(), inode: metadata.ino() }, metadata.len())
        } else {
            let what = "neither a block device nor a regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        let (bypass, direct) = bypass(&file)?;
        Ok(Device { file, bypass: Arc::new(bypass), direct, id, size })
    }

    fn is_block(&self) -> bool {
        matches!(self.id, DeviceId::Block(_))
    }

    fn write_zeros(&mut self, mut offset: u64, end: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(end.saturating_sub(offset).min(ZEROS_BYTES)).unwrap_or(0)];
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeros.len());
            self.file.write_all_at(zeros.get(..length).unwrap_or(&zeros), offset)?;
            offset += u64::try_from(length).unwrap_or(0);
        }
        Ok(())
    }

    /// A device that can unmap and then reads as zeros is told to (`BLKDEV_ZERO_NOFALLBACK` in block/fops.c: it is an error
    /// where zeros are not certain): it writes nothing, and what it is made of may be given back. `BLKZEROOUT` asks for zeros that
    /// stay allocated, which a loop device on a tmpfs, for one, can only write.
    fn zero_aligned(&self, offset: u64, length: u64) -> io::Result<()> {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(self.file.as_fd(), hole, signed(offset)?, signed(length)?) {
            Err(Errno::EOPNOTSUPP) if self.is_block() => ioctl::zero_out(&self.file, offset, length),
            done => Ok(done?),
        }
    }
}

/// A second descriptor of the same device that bypasses the page cache, and whether it really does: some file systems
/// cannot.
fn bypass(file: &File) -> io::Result<(File, bool)> {
    use std::os::fd::AsRawFd as _;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let open =
        |flags| OpenOptions::new().read(true).write(true).custom_flags(flags | libc::O_CLOEXEC).open(&path);
    match open(libc::O_DIRECT) {
        Ok(bypass) => Ok((bypass, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open(0)?, false)),
        Err(error) => Err(error),
    }
}

/// The part of `data`, to be written at `offset`, that a device can take from memory as it lies there.
fn aligned_part(data: &[u8], offset: u64) -> std::ops::Range<usize> {
    let alignment = ALIGNMENT as u64;
    let before = usize::try_from(offset.next_multiple_of(alignment) - offset).unwrap_or(usize::MAX);
    let fits = data.as_ptr().align_offset(ALIGNMENT) == before;
    let whole = data.len().saturating_sub(before) / ALIGNMENT * ALIGNMENT;
    if fits && whole > 0 { before..before + whole } else { 0..0 }
}

impl SlotDevice for Device {
    fn id(&self) -> DeviceId {
        self.id
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn reader(&self) -> io::Result<Box<dyn SlotReader>> {
        Ok(Box::new(Reader { file: self.bypass.clone(), window: Window::default() }))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let part = if self.direct && self.is_block() { aligned_part(data, offset) } else { 0..0 };
        let at = |position: usize| offset + u64::try_from(position).unwrap_or(0);
        let pieces =
            [(0..part.start, &self.file), (part.clone(), &*self.bypass), (part.end..data.len(), &self.file)];
        for (piece, file) in pieces.into_iter().filter(|(piece, _)| !piece.is_empty()) {
            file.write_all_at(data.get(piece.clone()).unwrap_or_default(), at(piece.start))?;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(ZERO_ALIGNMENT), end - end % ZERO_ALIGNMENT);
        if first >= last {
            return self.write_zeros(offset, end);
        }
        self.write_zeros(offset, first)?;
        match self.zero_aligned(first, last - first) {
            Ok(()) => {}
            // The device or file system has no such command; zeros are zeros.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL)) =>
            {
                self.write_zeros(first, last)?;
            }
            Err(error) => return Err(error),
        }
        self.write_zeros(last, end)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn drop_caches(&mut self) -> io::Result<()> {
        posix_fadvise(self.file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        // Direct reads do not need it, and it needs CAP_SYS_ADMIN, which the unit does not give.
        if self.is_block() && !self.direct {
            ioctl::flush_buffers(&self.file)?;
        }
        Ok(())
    }
}

/// Reads an open device, through a window unless it can read to where the bytes are wanted.
struct Reader {
    file: Arc<File>,
    window: Window,
}

impl SlotReader for Reader {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len().is_multiple_of(ALIGNMENT) && aligned_part(buffer, offset).len() == buffer.len() {
            let length = read_up_to(&self.file, buffer, offset)?;
            return if length == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + u64::try_from(done).unwrap_or(0);
            let found = self.window.copy(at, rest);
            if found == 0 {
                self.window.fill(&self.file, at, rest.len())?;
                if !self.window.holds(at) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            done += found;
        }
        Ok(())
    }
}

/// Reads until the memory is full or the device ends, and tells how much.
fn read_up_to(device: &File, memory: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = memory.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match device.read_at(rest, offset + u64::try_from(filled).unwrap_or(0)) {
            Ok(0) => break,
            Ok(length) => {
                filled += length;
                // A short direct read ends off alignment: only at the end of the device, where nothing follows.
                if length % ALIGNMENT != 0 {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Part of the device, so that small reads do not each go to it.
#[derive(Default)]
struct Window {
    memory: Option<Aligned>,
    offset: u64,
    filled: usize,
}

impl Window {
    fn end(&self) -> u64 {
        self.offset + u64::try_from(self.filled).unwrap_or(0)
    }

    fn holds(&self, offset: u64) -> bool {
        (self.offset..self.end()).contains(&offset)
    }

    /// Copies what is there from `offset` on and tells how much.
    fn copy(&self, offset: u64, into: &mut [u8]) -> usize {
        let Some(memory) = self.memory.as_ref().filter(|_| self.holds(offset)) else { return 0 };
        let skip = usize::try_from(offset - self.offset).unwrap_or(usize::MAX);
        let found = memory.bytes().get(skip..self.filled).unwrap_or_default();
        let length = found.len().min(into.len());
        if let (Some(into), Some(found)) = (into.get_mut(..length), found.get(..length)) {
            into.copy_from_slice(found);
        }
        length
    }

    /// Reads the window that contains `offset`: whole where the one before it ended, else no more than is wanted.
    fn fill(&mut self, device: &File, offset: u64, wanted: usize) -> io::Result<()> {
        let within = usize::try_from(offset % ALIGNMENT as u64).unwrap_or(0);
        let start = offset - offset % ALIGNMENT as u64;
        let follows = self.filled > 0 && start == self.end();
        let length = if follows { WINDOW_BYTES } else { (within + wanted).next_multiple_of(ALIGNMENT) };
        let memory = self.memory.get_or_insert_with(|| Aligned::new(WINDOW_BYTES));
        (self.offset, self.filled) = (start, 0);
        let memory = memory.bytes_mut().get_mut(..length.min(WINDOW_BYTES)).unwrap_or_default();
        self.filled = read_up_to(device, memory, start)?;
        Ok(())
    }
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S11: reads of every length and offset return the same bytes as the file holds.
    #[test]
    fn windows_return_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot");
        let content: Vec<u8> = (0..3 * WINDOW_BYTES + 777).map(|n| (n * 31).to_le_bytes()[1]).collect();
        std::fs::write(&path, &content).unwrap();
        let mut device = Device::open(&path).unwrap().reader().unwrap();
        for (offset, length) in
            [(0, 1), (4095, 2), (WINDOW_BYTES - 1, 3), (5, 2 * WINDOW_BYTES), (content.len() - 9, 9)]
        {
            let mut buffer = vec![0; length];
            device.read_at(offset as u64, &mut buffer).unwrap();
            assert!(buffer == content[offset..offset + length], "{offset}+{length}");
        }
        let mut beyond = [0; 10];
        assert!(device.read_at(content.len() as u64 - 9, &mut beyond).is_err());
    }

    /// S17: a damaged table can make partitions share sectors, which the tools that write tables refuse to do.
    #[test]
    fn a_partition_that_shares_sectors_with_another_is_told() {
        let disk = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[(&str, &str)]| {
            let place = disk.path().join(name);
            std::fs::create_dir(&place).unwrap();
            for (file, text) in files {
                std::fs::write(place.join(file), format!("{text}\n")).unwrap();
            }
            place
        };
        make("queue", &[]);
        let first = make("sda1", &[("partition", "1"), ("start", "2048"), ("size", "1000")]);
        let second = make("sda2", &[("partition", "2"), ("start", "3048"), ("size", "1000")]);
        let alone = |start| Some(Partition { start, sectors: 1000, overlaps: None });
        assert_eq!(
            (partition(&first), partition(&second)),
            (alone(2048), alone(3048)),
            "neighbours share nothing"
        );
        make("sda4", &[("partition", "4"), ("start", "2047"), ("size", "2")]);
        assert_eq!(partition(&first), alone(2048), "an extended partition is a container");
        make("sda3", &[("partition", "3"), ("start", "3045"), ("size", "3")]);
        let overlaps = Some("sda3".to_owned());
        assert_eq!(partition(&first), Some(Partition { start: 2048, sectors: 1000, overlaps }));
        assert_eq!(partition(&second), alone(3048));
        assert_eq!(partition(disk.path()), None, "a whole disk is no partition");
    }

    #[test]
    fn zeroing_touches_exactly_the_range() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot");
        for (offset, length) in [(0u64, 10u64), (100, 20_000), (4096, 8192), (8191, 2), (1, 4095)] {
            std::fs::write(&path, vec![7; 65536]).unwrap();
            let mut device = Device::open(&path).unwrap();
            device.zero(offset, length).unwrap();
            device.flush().unwrap();
            let found = std::fs::read(&path).unwrap();
            let wrong = (0..).zip(&found).find(|&(at, &byte)| {
                let zero = (offset..offset + length).contains(&at);
                (byte == 0) != zero
            });
            assert_eq!(wrong, None, "{offset}+{length}");
        }
    }
}
